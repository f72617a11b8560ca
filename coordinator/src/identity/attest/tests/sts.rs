//! STS as it answers on its bad days.

use std::time::Duration;

use jiff::SignedDuration;
use rstest::rstest;

use super::fake::{Play, failure, success};
use super::*;

#[tokio::test]
async fn an_instance_is_who_sts_says() {
    let world = World::new().await;
    let attested = world.attest(&world.fields()).await.unwrap();
    assert_eq!(attested.instance.as_str(), INSTANCE);
    assert_eq!(attested.role, super::super::Role::InstanceIdentity);
    let names: Vec<&str> = attested
        .accounts
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, ["main"]);
}

/// A new field of STS's must not stop all enrolment.
#[rstest]
#[case::in_the_result("\"Account\":", "\"SourceIdentity\":{\"a\":[1]},\"Account\":")]
#[case::beside_the_result("\"ResponseMetadata\":", "\"Notice\":null,\"ResponseMetadata\":")]
#[tokio::test]
async fn what_sts_adds_to_its_answer_is_left_aside(#[case] part: &str, #[case] instead: &str) {
    let world = World::new().await;
    let body = success(&world.who);
    assert!(body.contains(part), "{body}");
    world
        .sts
        .play([Play::Answer(200, body.replacen(part, instead, 1))]);
    let attested = world.attest(&world.fields()).await.unwrap();
    assert_eq!(attested.instance.as_str(), INSTANCE);
}

#[rstest]
#[case::throttle(400, failure("Throttling"))]
#[case::too_new(403, failure("InvalidClientTokenId"))]
#[case::too_many(429, String::new())]
#[case::broken(500, failure("InternalFailure"))]
#[case::busy(503, "<html>busy</html>".to_owned())]
#[tokio::test]
async fn an_sts_that_cannot_say_is_asked_again_later(#[case] status: u16, #[case] body: String) {
    let world = World::new().await;
    world.sts.play([Play::Answer(status, body)]);
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    world.attest(&world.fields()).await.unwrap();
}

#[rstest]
#[case::forbidden(
    403,
    failure("SignatureDoesNotMatch"),
    "403 Forbidden, SignatureDoesNotMatch"
)]
#[case::expired(403, failure("ExpiredToken"), "ExpiredToken")]
#[case::bad(400, failure("IncompleteSignature"), "IncompleteSignature")]
#[case::absent(404, String::new(), "404 Not Found")]
#[case::long_code(403, failure("a b"), "403 Forbidden")]
#[case::partial(206, success(&Credentials::of_instance(ACCOUNT, INSTANCE)), "206")]
#[case::created(201, success(&Credentials::of_instance(ACCOUNT, INSTANCE)), "201")]
#[tokio::test]
async fn any_status_but_200_is_no_proof(
    #[case] status: u16,
    #[case] body: String,
    #[case] told: &str,
) {
    let world = World::new().await;
    world.sts.play([Play::Answer(status, body)]);
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(matches!(error, AttestError::Refused(_)), "{error}");
    assert!(error.to_string().contains(told), "{error}");
}

/// aws-iam-authenticator, `TestVerifyNoRedirectsFollowed`.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = World::new().await;
    for status in [301, 302, 303, 307, 308] {
        let world = World::new().await;
        let to = format!("location: {}\r\n", elsewhere.sts.url);
        world.sts.play([Play::With(status, to, String::new())]);
        let error = world.attest(&world.fields()).await.unwrap_err();
        assert!(matches!(error, AttestError::Refused(_)), "{error}");
    }
    assert!(elsewhere.sts.seen().is_empty());
}

#[tokio::test]
async fn an_sts_that_is_silent_gone_or_hangs_up_is_unavailable() {
    let world = World::with(|settings| settings.time_limit = Duration::from_millis(200)).await;
    world.sts.play([Play::Silence, Play::HangUp]);
    for _ in 0..2 {
        let error = world.attest(&world.fields()).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    // Port 9 of loopback refuses.
    let gone = Some("http://127.0.0.1:9".parse().unwrap());
    let world = World::with(|settings| settings.endpoint = gone).await;
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let shown = error.to_string();
    assert!(shown.contains("refused"), "{shown}");
    assert!(!shown.contains(&world.who.token), "{shown}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let world = World::new().await;
    let padded = |length: usize| {
        let body = success(&world.who);
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    world.sts.play([
        Play::Answer(200, padded(64 * 1024 + 1)),
        Play::Answer(200, padded(64 * 1024)),
    ]);
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(error.to_string().contains("more than 65536"), "{error}");
    world.attest(&world.fields()).await.unwrap();
}

#[tokio::test]
async fn an_answer_in_pieces_without_end_is_not_read_to_its_end() {
    let world = World::with(|settings| settings.time_limit = Duration::from_secs(5)).await;
    world.sts.play([Play::Endless]);
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(error.to_string().contains("more than 65536"), "{error}");
}

/// The agent signs with the time that it is told, which is ours: STS refuses all of them if that is off.
#[rstest]
#[case::behind(SignedDuration::from_mins(6), "s behind STS's")]
#[case::ahead(SignedDuration::from_mins(-6), "s ahead of STS's")]
#[tokio::test]
async fn a_clock_of_ours_that_is_off_is_said_and_no_fault_of_the_instance(
    #[case] off: SignedDuration,
    #[case] told: &str,
) {
    let world = World::new().await;
    let refused = |at: Timestamp| {
        let date = at.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n");
        Play::With(403, date.to_string(), failure("SignatureDoesNotMatch"))
    };
    let now = Timestamp::now();
    world.sts.play([refused(now + off), refused(now)]);
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let shown = error.to_string();
    assert!(
        shown.contains("this coordinator's clock is") && shown.contains(told),
        "{shown}"
    );
    // With a clock that is right, it is the signature that is wrong.
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(matches!(error, AttestError::Refused(_)), "{error}");
}

#[tokio::test]
async fn many_questions_wait_for_their_turn() {
    let world = World::new().await;
    let fields = world.fields();
    let attested = futures::future::join_all((0..200).map(|_| world.attest(&fields))).await;
    assert!(attested.iter().all(Result::is_ok));
    assert!(world.sts.most_open() <= 64, "{}", world.sts.most_open());
}

#[rstest]
#[case(|it: &mut AttestAccount| it.account_id = "1234".into(), "account main: account_id \"1234\" is not 12 digits")]
#[case(|it: &mut AttestAccount| it.region = "eu-west-1.x".into(), "account main: region \"eu-west-1.x\" is not a region, such as eu-west-1")]
#[case(|it: &mut AttestAccount| it.instance_profile_role = Some("*".into()), "account main: instance_profile_role \"*\" is not the name of an IAM role, without its path")]
fn an_account_that_cannot_be_is_named(
    #[case] change: fn(&mut AttestAccount),
    #[case] expected: &str,
) {
    let mut entry = account("main", ACCOUNT);
    change(&mut entry);
    let error = Attestor::new(AttestSettings::new(vec![entry])).unwrap_err();
    assert_eq!(error.to_string(), expected);
}
