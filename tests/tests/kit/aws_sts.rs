//! STS: roles, instances' identities, and lies.

use std::time::Duration;

use muster_tests::fakes::aws::{Claim, Credentials, Effect, Fault, Options, StsLie};

use crate::aws_support::{As, Cloud, code};

const ROLE: &str = "arn:aws:iam::210987654321:role/muster/launcher";

async fn two_accounts() -> Cloud {
    let cloud = Cloud::with(Options {
        accounts: vec!["123456789012".to_owned(), "210987654321".to_owned()],
        instance_role: Some("runner".to_owned()),
        ..Options::default()
    })
    .await;
    cloud.aws.add_role(ROLE, Some("external"));
    cloud
}

/// The other account, through the role.
async fn assumed(cloud: &Cloud) -> As {
    let answer = cloud
        .sts_as(&cloud.coordinator())
        .assume_role()
        .role_arn(ROLE)
        .role_session_name("muster-test")
        .external_id("external")
        .tags(
            aws_sdk_sts::types::Tag::builder()
                .key("muster")
                .value("yes")
                .build()
                .unwrap(),
        )
        .duration_seconds(900)
        .send()
        .await
        .unwrap();
    let given = answer.credentials().unwrap();
    let arn = answer.assumed_role_user().unwrap().arn();
    assert_eq!(
        arn,
        "arn:aws:sts::210987654321:assumed-role/launcher/muster-test"
    );
    As {
        key: Credentials {
            access_key_id: given.access_key_id().to_owned(),
            secret_access_key: given.secret_access_key().to_owned(),
            session_token: Some(given.session_token().to_owned()),
            expires: None,
        },
        region: cloud.home.region.clone(),
    }
}

#[tokio::test]
async fn a_role_is_a_way_into_another_account() {
    let cloud = two_accounts().await;
    let by = assumed(&cloud).await;
    let subnets = cloud.ec2_as(&by).describe_subnets().send().await.unwrap();
    assert_eq!(subnets.subnets()[0].owner_id(), Some("210987654321"));
    let [session] = &cloud.aws.sessions()[..] else {
        panic!("not one session");
    };
    assert_eq!(session.external_id.as_deref(), Some("external"));
    assert_eq!(session.tags["muster"], "yes");
    assert_eq!(session.by, "arn:aws:iam::123456789012:user/coordinator");
    cloud.aws.expire_key(&by.key.access_key_id);
    let call = cloud.ec2_as(&by).describe_subnets().send().await;
    assert_eq!(code(call), "RequestExpired");
    let call = cloud.sts_as(&by).get_caller_identity().send().await;
    assert_eq!(code(call), "ExpiredToken");
    cloud.assert_conforms();
}

#[tokio::test]
async fn only_who_knows_the_external_id_gets_in() {
    let cloud = two_accounts().await;
    let sts = cloud.sts_as(&cloud.coordinator());
    let ask = |role: &str, id: Option<&str>| {
        let call = sts.assume_role().role_arn(role).role_session_name("a-b");
        call.set_external_id(id.map(str::to_owned)).send()
    };
    assert_eq!(code(ask(ROLE, None).await), "AccessDenied");
    assert_eq!(code(ask(ROLE, Some("wrong")).await), "AccessDenied");
    let other = "arn:aws:iam::210987654321:role/other";
    assert_eq!(code(ask(other, Some("external")).await), "AccessDenied");
    let long = sts.assume_role().role_arn(ROLE).role_session_name("a-b");
    let long = long.external_id("external").duration_seconds(7200);
    assert_eq!(code(long.send().await), "ValidationError");
    assert_eq!(cloud.aws.sessions().len(), 0);
    cloud.assert_conforms();
}

#[tokio::test]
async fn an_instance_has_an_identity() {
    let cloud = two_accounts().await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    let mut by = cloud.coordinator();
    by.key = cloud.aws.identity_credentials(&id).unwrap();
    let answer = cloud.sts_as(&by).get_caller_identity().send().await;
    let answer = answer.unwrap();
    let arn = format!("arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/{id}");
    assert_eq!(answer.arn(), Some(&*arn));
    assert_eq!(answer.account(), Some("123456789012"));
    by.key.session_token = None;
    let answer = cloud.sts_as(&by).get_caller_identity().send().await;
    assert_eq!(code(answer), "InvalidClientTokenId");
    cloud.assert_conforms();
}

#[tokio::test]
async fn lies_come_as_they_were_made() {
    let cloud = Cloud::start().await;
    let claim = Claim {
        account: "123456789012".to_owned(),
        arn: "arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-00000000000000001"
            .to_owned(),
        user_id: "x".to_owned(),
    };
    let ask = async |lie: &StsLie| {
        cloud.aws.lie(lie, &claim);
        let body = "Action=GetCallerIdentity&Version=2011-06-15";
        let request = http::Request::post(&cloud.aws.url).body(body.into());
        let answer = cloud.aws.handle(request.unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        (status, String::from_utf8_lossy(answer.body()).into_owned())
    };
    for (lie, status, part) in [
        (StsLie::Throttled, 400, r#""Code":"Throttling""#),
        (StsLie::Forbidden, 403, "SignatureDoesNotMatch"),
        (
            StsLie::Redirect("http://127.0.0.1:1/".to_owned()),
            307,
            "i-0",
        ),
        (StsLie::Garbage, 200, "{"),
        (StsLie::Html, 200, "<html>"),
        (StsLie::Xml, 200, "<Arn>"),
        (StsLie::OtherAction, 200, "AssumeRoleResponse"),
        (StsLie::TwoRoots, 200, "}{"),
        (StsLie::MissingKey, 200, "UserId"),
        (StsLie::DuplicateKey, 200, "i-00000000000000000"),
        (
            StsLie::UnknownRoot,
            200,
            r#"{"Extra":{},"GetCallerIdentityResponse""#,
        ),
        (StsLie::OtherAccount, 200, "999999999999"),
        (StsLie::OddStatus, 202, "i-0"),
        (StsLie::Oversize, 200, "i-0"),
    ] {
        let (had, body) = ask(&lie).await;
        assert_eq!(had, status, "{lie:?}");
        assert!(body.contains(part), "{lie:?}: {body}");
        // Whatever was told, it is told once.
        assert_eq!(ask(&StsLie::Xml).await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_be_slow() {
    let cloud = Cloud::start().await;
    let slow = Effect::Delay(Duration::from_secs(30));
    cloud.aws.inject(Fault::next("GetCallerIdentity", slow));
    let from = tokio::time::Instant::now();
    let sts = cloud.sts_as(&cloud.coordinator());
    sts.get_caller_identity().send().await.unwrap();
    assert!(from.elapsed() >= Duration::from_secs(30));
    cloud.aws.inject(Fault::next("*", Effect::ServerError(503)));
    let call = sts.get_caller_identity().send().await;
    assert_eq!(code(call), "ServiceUnavailable");
    cloud.assert_conforms();
}
