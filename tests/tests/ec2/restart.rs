//! A coordinator that dies at any point of a launch.

use std::time::Duration;

use muster_tests::fakes::aws::{Effect, Fault};
use rstest::rstest;

use crate::kit::{Home, PATIENCE, id, known, order};

/// Lets launches begin and the coordinator die; then the launches are ordered again, as the outbox does.
#[rstest]
#[case::before_the_call(Effect::HangUp)]
#[case::after_the_call(Effect::LoseAnswer)]
#[case::in_the_call(Effect::Silence)]
#[tokio::test]
async fn a_launch_that_was_begun_before_a_crash_makes_one_instance(#[case] effect: Effect) {
    let home = Home::start().await;
    home.aws.inject(Fault::times("CreateFleet", 1, effect));
    let provider = home.provider.clone();
    let begun: Vec<_> = (0..4)
        .map(|n| {
            let (provider, launch) = (provider.clone(), format!("l-{n:05}"));
            tokio::spawn(async move {
                let order = order(&launch, muster_core::Shape::default());
                // It is cut off.
                let _ = provider.launch(order).await;
            })
        })
        .collect();
    home.aws
        .wait_for("the call", PATIENCE, || {
            let calls = home.aws.calls_of("CreateFleet");
            (!calls.is_empty()).then_some(())
        })
        .await
        .unwrap();
    let home = home.crash().await;
    for one in begun {
        one.abort();
    }
    let launched = home.launch_many(4).await;
    let mut instances: Vec<_> = launched.iter().map(id).collect();
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), 4);
    assert_eq!(home.aws.instances().len(), 4, "{:?}", home.aws.fleets());
    home.no_violations();
}

#[tokio::test]
async fn an_instance_whose_launch_is_not_settled_is_nobodys_stray() {
    let home = Home::start().await;
    home.aws
        .inject(Fault::times("CreateFleet", 3, Effect::LoseAnswer));
    let provider = home.provider.clone();
    let launch = tokio::spawn(async move {
        provider
            .launch(order("l-1", muster_core::Shape::default()))
            .await
    });
    home.aws
        .wait_for("the instance", PATIENCE, || {
            (!home.aws.instances().is_empty()).then_some(())
        })
        .await
        .unwrap();
    let listed = home.provider.list().await.unwrap();
    if home.aws.calls_of("CreateFleet").len() < 4 {
        assert_eq!(listed.alive, []);
    }
    let launched = tokio::time::timeout(PATIENCE, launch).await.unwrap();
    let instance = launched.unwrap().unwrap().instance;
    let listed = home.provider.list().await.unwrap();
    assert_eq!(listed.alive, [known(instance)]);
    home.no_violations();
}

#[tokio::test]
async fn a_launch_that_was_answered_before_a_crash_finds_its_instance() {
    let home = Home::start().await;
    let first = id(&home.launch("l-1").await);
    let home = home.crash().await;
    let again = id(&home.launch("l-1").await);
    assert_eq!(first, again);
    assert_eq!(home.aws.instances().len(), 1);
    let calls = home.aws.calls_of("CreateFleet").len();
    assert_eq!(calls, 1, "nobody is asked twice");
    home.no_violations();
}

#[tokio::test]
async fn the_coordinator_starts_with_no_aws_at_all() {
    let home = Home::start().await;
    home.aws.inject(Fault::times("*", u32::MAX, Effect::HangUp));
    let home = home.crash().await;
    let launch = home
        .provider
        .launch(order("l-1", muster_core::Shape::default()));
    let early = tokio::time::timeout(Duration::from_millis(200), launch).await;
    assert!(early.is_err(), "{early:?}");
    home.provider.list().await.unwrap_err();
    home.aws.clear_faults();
    id(&home.launch("l-1").await);
    home.no_violations();
}
