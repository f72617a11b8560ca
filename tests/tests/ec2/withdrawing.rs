//! Launches that nobody needs any more.

use muster_coordinator::compute::{LaunchError, Launched};
use muster_core::{LaunchFailure, Shape};
use muster_tests::fakes::aws::{Effect, Fault};
use tokio::task::JoinHandle;

use crate::kit::{Home, PATIENCE, order};

type Answer = Result<Launched, LaunchError>;

/// A launch that is under way.
fn launching(home: &Home, launch: &str) -> JoinHandle<Answer> {
    let (provider, order) = (home.provider.clone(), order(launch, Shape::default()));
    tokio::spawn(async move { provider.launch(order).await })
}

async fn answer(launch: JoinHandle<Answer>) -> Answer {
    let answered = tokio::time::timeout(PATIENCE, launch).await;
    answered.unwrap().unwrap()
}

/// Waits until a call has come.
async fn called(home: &Home, action: &str) {
    let come = || (!home.aws.calls_of(action).is_empty()).then_some(());
    home.aws.wait_for(action, PATIENCE, come).await.unwrap();
}

fn is_withdrawn(answer: &Answer) -> bool {
    let withdrawn = |error: &LaunchError| matches!(error, LaunchError::Failed { failure, .. } if *failure == LaunchFailure::Withdrawn);
    answer.as_ref().is_err_and(withdrawn)
}

#[tokio::test]
async fn one_that_waits_for_ec2_is_not_made() {
    let home = Home::start().await;
    // Nothing can be planned.
    let hang_up = Fault::times("DescribeSubnets", u32::MAX, Effect::HangUp);
    home.aws.inject(hang_up);
    let home = home.crash().await;
    let (needed, not_needed) = (launching(&home, "l-1"), launching(&home, "l-2"));
    called(&home, "DescribeSubnets").await;
    home.provider.withdraw("l-2".into()).await;
    let withdrawn = answer(not_needed).await;
    assert!(is_withdrawn(&withdrawn), "{withdrawn:?}");
    home.aws.clear_faults();
    answer(needed).await.unwrap();
    assert_eq!(home.aws.instances().len(), 1);
    home.no_violations();
}

#[tokio::test]
async fn one_that_is_withdrawn_before_it_comes_is_not_made() {
    let home = Home::start().await;
    home.provider.withdraw("l-1".into()).await;
    let withdrawn = home.launch("l-1").await;
    assert!(is_withdrawn(&withdrawn), "{withdrawn:?}");
    home.launch("l-2").await.unwrap();
    assert_eq!(home.aws.instances().len(), 1);
    home.no_violations();
}

#[tokio::test]
async fn one_that_ec2_was_asked_for_is_made() {
    let home = Home::start().await;
    home.aws
        .inject(Fault::times("CreateFleet", 2, Effect::LoseAnswer));
    let launch = launching(&home, "l-1");
    called(&home, "CreateFleet").await;
    home.provider.withdraw("l-1".into()).await;
    answer(launch).await.unwrap();
    assert_eq!(home.aws.instances().len(), 1);
    home.no_violations();
}

#[tokio::test]
async fn one_that_got_nothing_is_not_asked_for_again() {
    let home = Home::start().await;
    home.aws
        .inject(Fault::times("CreateFleet", 3, Effect::HangUp));
    home.aws.inject(Fault::times(
        "CreateFleet",
        1,
        Effect::Error {
            status: 400,
            code: "MaxSpotInstanceCountExceeded".to_owned(),
            message: "no".to_owned(),
        },
    ));
    let launch = launching(&home, "l-1");
    called(&home, "CreateFleet").await;
    home.provider.withdraw("l-1".into()).await;
    let withdrawn = answer(launch).await;
    assert!(is_withdrawn(&withdrawn), "{withdrawn:?}");
    assert!(home.aws.instances().is_empty());
    home.no_violations();
}
