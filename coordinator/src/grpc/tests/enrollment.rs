use std::time::Duration;

use muster_core::{Instance, Stage};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use tonic::Code;

use super::*;

#[tokio::test]
async fn of_many_that_present_one_token_exactly_one_enrols() {
    let world = World::with(vec![booting()]).await;
    let token = world.token(SOON).await;
    let attempts = (0..16).map(|_| world.enroll(token.expose_secret()));
    let outcomes = futures::future::join_all(attempts).await;
    let enrolled = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(enrolled, 1);
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    }
    assert_eq!(world.runner().await.stage(), Stage::Enrolled);
}

#[tokio::test]
async fn an_enrolment_names_the_instance_of_the_ledger() {
    let world = World::with(vec![booting()]).await;
    let token = world.token(SOON).await;
    let (issued, _) = world.enroll(token.expose_secret()).await.unwrap();
    let id = format!("spiffe://muster.test/pool/linux/instance/local/local/{INSTANCE}");
    assert_eq!(issued.spiffe_id, id);
    assert_eq!(issued.instance_id, INSTANCE);
    assert_eq!(
        issued.trust_anchors_der,
        [world.authority.certificate().to_vec()]
    );
}

#[tokio::test]
async fn a_machine_that_is_faster_than_the_news_of_its_launch_enrols() {
    let mut launching = booting();
    launching.instance = Instance::Requested;
    let world = World::with(vec![launching]).await;
    let token = world.token(SOON).await;
    world.enroll(token.expose_secret()).await.unwrap();
    let runner = world.runner().await;
    assert_eq!(runner.instance_id(), Some(&INSTANCE.into()));
}

#[tokio::test]
async fn unknown_and_expired_tokens_are_refused() {
    let world = World::with(vec![booting()]).await;
    let unknown = world.enroll(&"x".repeat(43)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unauthenticated);
    let token = world.token(Duration::ZERO).await;
    let expired = world.enroll(token.expose_secret()).await.unwrap_err();
    assert_eq!(expired.code(), Code::Unauthenticated);
    assert_eq!(world.runner().await.stage(), Stage::Booting);
}

#[tokio::test]
async fn a_launch_that_is_over_or_unknown_or_anothers_gets_no_certificate() {
    let mut other = booting();
    other.instance = Instance::Exists {
        id: "i-00000000000000001".into(),
    };
    for (runners, over) in [
        (vec![booting()], true),
        (vec![], false),
        (vec![other], false),
    ] {
        let world = World::with(runners).await;
        let token = world.token(SOON).await;
        if over {
            world.end_the_launch().await;
        }
        let refused = world.enroll(token.expose_secret()).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_begin_is_refused() {
    let world = World::with(vec![booting()]).await;
    let mut client = EnrollmentServiceClient::new(world.connect(world.enroll, None));
    for step in [None, Some(Asked::Proof(EnrollProof::default()))] {
        let (say, said) = mpsc::channel(1);
        say.send(EnrollRequest { step }).await.unwrap();
        let answers = client.enroll(ReceiverStream::new(said)).await.unwrap();
        let refused = answers.into_inner().message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_large_message_is_refused() {
    let world = World::with(vec![booting()]).await;
    let refused = world.enroll(&"x".repeat(20_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

/// Few exchanges of one address, and little time for each.
const SHORT: Patience = Patience {
    message: Duration::from_secs(2),
    per_address: 3,
};

#[tokio::test]
async fn one_address_can_not_keep_the_others_from_enrolling() {
    let patience = Patience {
        message: SOON,
        ..SHORT
    };
    let world = World::with_patience(vec![booting()], None, patience).await;
    let mut held = Vec::new();
    for _ in 0..patience.per_address {
        held.push(
            Challenged::new(world.connect(world.enroll, None))
                .await
                .unwrap(),
        );
    }
    let one_more = Challenged::new(world.connect(world.enroll, None)).await;
    assert_eq!(one_more.err().unwrap().code(), Code::ResourceExhausted);
    let token = world.token(SOON).await;
    let other = channel_from("127.0.0.2", world.enroll, &world.authority, None);
    enroll(other, token.expose_secret()).await.unwrap();
    // What is given back can be had again.
    drop(held.pop());
    let again = async {
        while let Err(refused) = Challenged::new(world.connect(world.enroll, None)).await {
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        }
    };
    tokio::time::timeout(SOON, again).await.unwrap();
}

#[tokio::test]
async fn a_challenge_is_not_held_open_for_whoever_does_not_answer() {
    let world = World::with_patience(vec![booting()], None, SHORT).await;
    let mut silent = Challenged::new(world.connect(world.enroll, None))
        .await
        .unwrap();
    let (now, end) = (Timestamp::now(), silent.challenge.expires_at.unwrap());
    assert!(end.seconds <= now.as_second() + 3, "{end:?}");
    let ended = tokio::time::timeout(SOON, silent.answers.message()).await;
    let ended = ended.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended}");
    assert_eq!(ended.message(), "no proof in time");
}
