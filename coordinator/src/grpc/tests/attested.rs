//! Enrolment of instances of EC2. STS is a fake that verifies signatures; EC2 is a closure.

use std::sync::OnceLock;

use muster_core::{Instance, InstanceId, Outcome, Registration, Stage};
use muster_proto::v1::Hello;
use tonic::Code;

use super::aws::{Aws, OTHER_ACCOUNT, ROLE, facts, of_account};
use super::*;
use crate::compute::{InstanceFacts, InstanceState, ProviderError};
use crate::grpc::enrollment::Describe;
use crate::identity::attest::tests::fake::{Credentials, Play};
use crate::identity::attest::tests::{ACCOUNT, REGION, account};

#[tokio::test]
async fn an_instance_enrols_under_the_name_that_the_ledger_gives_it() {
    let aws = Aws::new().await;
    let issued = aws.enroll().await.unwrap();
    assert_eq!(
        issued.spiffe_id,
        format!("spiffe://muster.test/pool/linux/instance/main/{REGION}/{INSTANCE}")
    );
    assert_eq!(issued.instance_id, INSTANCE);
    assert_eq!(aws.world.runner().await.stage(), Stage::Enrolled);
    assert_eq!(aws.count("enrolled"), "1");
}

#[tokio::test]
async fn spire_1_14_6_of_64_that_enrol_as_one_instance_exactly_one_succeeds_and_the_host_is_ended()
{
    let aws = Aws::new().await;
    let outcomes = futures::future::join_all((0..64).map(|_| aws.enroll())).await;
    let enrolled = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(enrolled, 1);
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        // Those who come once it is ended find it over.
        let expected = [Code::AlreadyExists, Code::FailedPrecondition];
        assert!(expected.contains(&refused.code()), "{refused}");
    }
    let runner = aws.world.runner().await;
    let reason = "not trusted any more: somebody enrolled as this instance a second time";
    assert_eq!(
        runner.work,
        Work::Over {
            outcome: None::<Outcome>,
            reason: reason.to_owned()
        }
    );
    assert!(matches!(runner.instance, Instance::Ending { .. }));
    assert_eq!(runner.registration, Registration::None);
    assert_ne!(aws.count("second"), "0");
}

#[tokio::test]
async fn a_second_enrolment_ends_the_stream_of_the_first() {
    let aws = Aws::new().await;
    let key = KeyPair::generate().unwrap();
    let issued = aws.enroll_as(&aws.who, &key).await.unwrap();
    let certificate = CertificateDer::from(issued.certificate_der);
    let identity = (
        certificate,
        PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    );
    let channel = aws.world.connect(aws.world.agents, Some(identity));
    let mut stream = stream::Stream::greeted(&channel, Hello::default()).await;
    let (code, _) = aws.refusal().await;
    assert_eq!(code, Code::AlreadyExists);
    let ended = tokio::time::timeout(SOON, async {
        while stream.next().await?.is_some() {}
        Ok::<_, Status>(())
    });
    let ended = ended.await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
    let refused = stream::Stream::open(&channel).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_instance_whose_answer_was_lost_comes_again_with_its_key() {
    let aws = Aws::new().await;
    let key = KeyPair::generate().unwrap();
    let first = aws.enroll_as(&aws.who, &key).await.unwrap();
    let again = aws.enroll_as(&aws.who, &key).await.unwrap();
    assert_eq!(first.spiffe_id, again.spiffe_id);
    assert_eq!(aws.world.runner().await.stage(), Stage::Enrolled);
    let (code, _) = aws.refusal().await;
    assert_eq!(code, Code::AlreadyExists);
}

#[tokio::test]
async fn cve_2025_11621_the_same_instance_id_of_another_account_is_refused() {
    let aws = Aws::with(vec![of_account("main")], |settings| {
        settings.accounts.push(account("other", OTHER_ACCOUNT));
        for entry in &mut settings.accounts {
            entry.instance_profile_role = Some(ROLE.to_owned());
        }
    })
    .await;
    let ours = Credentials::of_role(ACCOUNT, ROLE, INSTANCE);
    let theirs = Credentials::of_role(OTHER_ACCOUNT, ROLE, INSTANCE);
    for who in [&ours, &theirs] {
        aws.sts.know(who);
    }
    let key = KeyPair::generate().unwrap();
    let refused = aws.enroll_as(&theirs, &key).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(aws.world.runner().await.stage(), Stage::Booting);
    aws.enroll_as(&ours, &key).await.unwrap();
}

#[tokio::test]
async fn an_instance_that_the_ledger_lacks_waits_only_while_a_launch_has_no_answer() {
    let mut launching = of_account("main");
    launching.instance = Instance::Requested;
    let aws = Aws::with(vec![launching], |_| {}).await;
    assert_eq!(aws.refusal().await.0, Code::Unavailable);
    let launched = Event::Launched {
        launch: LAUNCH.into(),
        instance: InstanceId::from("i-00000000000000001"),
        offering: None,
    };
    aws.world.engine.submit(launched).await.unwrap();
    let expected = "the ledger has no such instance".to_owned();
    assert_eq!(aws.refusal().await, (Code::FailedPrecondition, expected));

    // A launch of another account is no reason to wait.
    let mut elsewhere = of_account("elsewhere");
    elsewhere.instance = Instance::Requested;
    let aws = Aws::with(vec![elsewhere], |_| {}).await;
    assert_eq!(aws.refusal().await.0, Code::FailedPrecondition);
}

#[tokio::test]
async fn an_instance_whose_launch_is_over_is_refused() {
    let aws = Aws::new().await;
    aws.world.end_the_launch().await;
    let expected = "the launch is over".to_owned();
    assert_eq!(aws.refusal().await, (Code::FailedPrecondition, expected));
}

#[tokio::test]
async fn ec2_is_asked_again_while_it_does_not_know_the_instance() {
    let aws = Aws::new().await;
    let throttled = ProviderError("RequestLimitExceeded".to_owned());
    aws.say([Ok(None), Err(throttled), Ok(None)]);
    aws.enroll().await.unwrap();
}

#[tokio::test]
async fn an_instance_that_is_not_as_launched_is_refused_and_may_not_try_its_luck() {
    let aws = Aws::with(vec![of_account("main")], |settings| {
        settings.accounts[0].check_peer_ip = true;
    })
    .await;
    for change in [
        (|it| it.state = InstanceState::ShuttingDown) as fn(&mut InstanceFacts),
        |it| it.private_ip = Some("10.0.0.1".parse().unwrap()),
        |it| it.launched_at = Timestamp::UNIX_EPOCH,
        |it| it.coordinator = None,
        |it| it.pool = None,
        |it| it.batch = Some("mb-1".to_owned()),
        |it| it.image = "ami-0fedcba9876543210".to_owned(),
        |it| it.subnet = Some("subnet-2".to_owned()),
        |it| it.launched_as = None,
    ] {
        let mut changed = facts();
        change(&mut changed);
        aws.say([Ok(Some(changed))]);
        let expected = "the instance is not as it was launched".to_owned();
        assert_eq!(aws.refusal().await, (Code::FailedPrecondition, expected));
    }
    assert_eq!(aws.world.runner().await.stage(), Stage::Booting);
    aws.enroll().await.unwrap();
}

/// Tags are anybody's to write: whatever they hold, no certificate carries it.
#[tokio::test]
async fn cve_2021_27099_no_tag_reaches_a_certificate() {
    let aws = Aws::new().await;
    for evil in [
        "../..", "%2e%2e", "//", "", "pôol", "linux/", "linux\0", "Linux",
    ] {
        let mut tagged = facts();
        tagged.pool = Some(evil.to_owned());
        aws.say([Ok(Some(tagged))]);
        assert_eq!(aws.refusal().await.0, Code::FailedPrecondition, "{evil}");
    }
    let mut tagged = facts();
    tagged.batch = Some("../../operator/eve".to_owned());
    aws.say([Ok(Some(tagged))]);
    assert_eq!(aws.refusal().await.0, Code::FailedPrecondition);
    let issued = aws.enroll().await.unwrap();
    let expected = format!("spiffe://muster.test/pool/linux/instance/main/{REGION}/{INSTANCE}");
    assert_eq!(issued.spiffe_id, expected);
}

/// Nor does a name in the ledger and the configuration that is no segment of a path.
#[tokio::test]
async fn cve_2021_27099_an_account_that_is_no_segment_gets_no_certificate() {
    for evil in ["../..", "%2e%2e", "//", "", "pôol", "Main"] {
        let aws = Aws::with(vec![of_account(evil)], |settings| {
            settings.accounts[0].name = evil.into();
        })
        .await;
        let (code, message) = aws.refusal().await;
        assert_eq!(code, Code::FailedPrecondition, "{message}");
        assert!(message.starts_with("account \""), "{message}");
        assert_eq!(aws.world.runner().await.stage(), Stage::Booting);
    }
}

#[tokio::test]
async fn the_caller_learns_little_and_whether_to_come_again() {
    let aws = Aws::new().await;
    let key = KeyPair::generate().unwrap();
    let mut forged = aws.who.clone();
    forged.secret.push('x');
    let refused = aws.enroll_as(&forged, &key).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(refused.message(), "the evidence is not accepted");
    aws.sts.play([Play::Answer(500, String::new())]);
    let expected = "STS can't be asked at present".to_owned();
    assert_eq!(aws.refusal().await, (Code::Unavailable, expected));
    let mut mangled = aws.who.clone();
    mangled.token.push('\n');
    let refused = aws.enroll_as(&mangled, &key).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        refused.message(),
        "aws_sts.session_token: expected up to 4 KiB of base64"
    );
    assert_eq!(
        (aws.count("refused"), aws.count("unavailable")),
        ("2".to_owned(), "1".to_owned())
    );
}

/// Of a host that has just booted STS may not know yet.
#[tokio::test]
async fn a_key_that_sts_does_not_know_yet_may_come_again() {
    let aws = Aws::new().await;
    let newborn = Credentials::of_instance(ACCOUNT, "i-00000000000000009");
    let key = KeyPair::generate().unwrap();
    let later = aws.enroll_as(&newborn, &key).await.unwrap_err();
    assert_eq!(later.code(), Code::Unavailable, "{later}");
}

#[tokio::test]
async fn an_enrolment_that_comes_too_late_for_its_launch_gets_no_certificate() {
    // EC2's answer comes when the launch has just ended.
    let engine = Arc::new(OnceLock::<Engine>::new());
    let of_world = Arc::clone(&engine);
    let describe = Describe::new(move |_, _| {
        let engine = of_world.get().unwrap().clone();
        Box::pin(async move {
            engine.submit(end()).await.unwrap();
            Ok(Some(facts()))
        })
    });
    let aws = Aws::described_by(vec![of_account("main")], |_| {}, describe).await;
    engine.set(aws.world.engine.clone()).unwrap();
    let expected = "the launch is over".to_owned();
    assert_eq!(aws.refusal().await, (Code::FailedPrecondition, expected));
    assert_eq!(aws.count("enrolled"), "0");
}

#[tokio::test]
async fn the_same_key_gets_no_second_certificate_once_a_registration_is_made() {
    let aws = Aws::new().await;
    let key = KeyPair::generate().unwrap();
    let issued = aws.enroll_as(&aws.who, &key).await.unwrap();
    let certificate = CertificateDer::from(issued.certificate_der);
    let identity = (
        certificate,
        PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    );
    let channel = aws.world.connect(aws.world.agents, Some(identity));
    let _stream = stream::Stream::greeted(&channel, Hello::default()).await;
    aws.world
        .until("registered", |it| it.registration != Registration::None)
        .await;
    let refused = aws.enroll_as(&aws.who, &key).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert!(aws.world.runner().await.is_over());
    assert_eq!(aws.count("second"), "1");
}

#[tokio::test]
async fn without_an_account_no_proof_by_sts_is_taken() {
    let aws = Aws::new().await;
    let without = World::with(vec![booting()]).await;
    let aws = Aws {
        world: without,
        ..aws
    };
    assert_eq!(aws.refusal().await.0, Code::InvalidArgument);
    assert!(aws.sts.seen().is_empty());
}
