//! Answers that don't come, or come wrong: nothing is made twice, nothing is lost.

use std::time::Duration;

use muster_tests::fakes::aws::{Answer, Effect, Fault};
use rstest::rstest;

use crate::kit::{Home, id, refusal};

#[rstest]
#[case::lost(Effect::LoseAnswer)]
#[case::hung_up(Effect::HangUp)]
#[case::done_and_then_502(Effect::ActThenFail(502))]
#[case::internal(Effect::ServerError(500))]
#[case::unavailable(Effect::ServerError(503))]
#[case::throttled(Effect::Throttle)]
#[case::html(Effect::Answer(Answer::new(200, "text/html", "<html>proxy</html>")))]
#[case::nothing(Effect::Answer(Answer::new(200, "text/xml", "")))]
#[case::late(Effect::Delay(Duration::from_millis(300)))]
#[tokio::test]
async fn a_launch_without_an_answer_is_asked_again_as_it_was(#[case] effect: Effect) {
    let home = Home::start().await;
    home.aws.inject(Fault::times("CreateFleet", 2, effect));
    let launched = home.launch_many(3).await;
    assert!(launched.iter().all(Result::is_ok), "{launched:?}");
    assert_eq!(home.aws.instances().len(), 3, "{:?}", home.aws.fleets());
    home.no_violations();
}

#[tokio::test]
async fn while_an_answer_is_awaited_people_hear_why() {
    let home = Home::start().await;
    home.aws
        .inject(Fault::times("CreateFleet", 3, Effect::Throttle));
    let (events, mut told) = tokio::sync::mpsc::channel(8);
    let mut order = crate::kit::order("l-1", muster_core::Shape::default());
    order.held_up = muster_coordinator::compute::HeldUp::of("l-1".into(), events);
    home.provider.launch(order).await.unwrap();
    let mut reasons = Vec::new();
    while let Ok(muster_core::Event::HeldUp { reason, .. }) = told.try_recv() {
        reasons.push(reason);
    }
    let throttled = |reason: &String| reason.contains("RequestLimitExceeded");
    assert!(reasons.iter().any(throttled), "{reasons:?}");
    home.no_violations();
}

#[tokio::test]
async fn nothing_is_asked_while_the_subnets_are_not_known() {
    let home = Home::start().await;
    home.aws.clear_faults();
    home.aws
        .inject(Fault::times("DescribeSubnets", 2, Effect::ServerError(500)));
    let home = home.crash().await;
    let launched = home.launch("l-1").await;
    id(&launched);
    home.no_violations();
}

#[rstest]
#[case::lost(Effect::LoseAnswer)]
#[case::throttled(Effect::Throttle)]
#[case::internal(Effect::ServerError(500))]
#[tokio::test]
async fn an_end_without_an_answer_is_an_error_and_can_be_asked_again(#[case] effect: Effect) {
    let home = Home::start().await;
    let instance = id(&home.launch("l-1").await);
    home.aws.inject(Fault::next("TerminateInstances", effect));
    home.provider.terminate(&instance, true).await.unwrap_err();
    home.provider.terminate(&instance, true).await.unwrap();
    assert!(home.aws.alive().is_empty());
    home.no_violations();
}

#[tokio::test]
async fn a_wrong_key_is_named_and_passes_once_it_is_right() {
    let home = Home::start().await;
    let key = home.aws.options().access_key_id.clone();
    home.aws.expire_key(&key);
    let error = home.provider.list().await.unwrap_err().to_string();
    assert!(error.starts_with("DescribeInstances: "), "{error}");
    assert!(error.contains("xpired"), "{error}");
}

#[rstest]
#[case::session("ExpiredToken")]
#[case::key("InvalidClientTokenId")]
#[case::signature("SignatureDoesNotMatch")]
#[case::client("UnrecognizedClientException")]
#[tokio::test]
async fn a_key_that_is_not_taken_is_no_reason_to_give_up(#[case] code: &str) {
    let home = Home::start().await;
    home.aws
        .inject(Fault::times("CreateFleet", 2, refusal(code)));
    id(&home.launch("l-1").await);
    assert_eq!(home.aws.instances().len(), 1);
    home.no_violations();
}

#[rstest]
#[case::permission("UnauthorizedOperation")]
#[case::capacity("InsufficientInstanceCapacity")]
#[case::key("ExpiredToken")]
#[tokio::test]
async fn a_refusal_after_a_lost_answer_throws_nothing_away(#[case] code: &str) {
    let home = Home::start().await;
    home.aws
        .inject(Fault::next("CreateFleet", Effect::LoseAnswer));
    home.aws.inject(Fault::next("CreateFleet", refusal(code)));
    let instance = id(&home.launch("l-1").await);
    let alive = home.aws.alive();
    assert_eq!(alive.len(), 1);
    assert_eq!(alive[0].id, instance.as_str());
    assert_eq!(
        home.aws.calls_of("CreateFleet").len(),
        if code == "ExpiredToken" { 3 } else { 2 }
    );
    home.no_violations();
}

#[tokio::test]
async fn a_refusal_after_a_call_that_did_not_get_through_is_one() {
    let home = Home::start().await;
    home.aws.inject(Fault::next("CreateFleet", Effect::HangUp));
    let denied = refusal("UnauthorizedOperation");
    home.aws.inject(Fault::next("CreateFleet", denied));
    let error = home.launch("l-1").await.unwrap_err().to_string();
    assert!(error.contains("UnauthorizedOperation"), "{error}");
    assert!(home.aws.instances().is_empty());
    home.no_violations();
}
