//! Calls whose token says more than their answer: of long ago, or used before.

use jiff::{SignedDuration, Timestamp};
use muster_coordinator::compute::{LaunchError, Launched};
use muster_core::Shape;
use muster_tests::fakes::aws::{Effect, Fault, Options, Stages};
use tokio::task::JoinHandle;

use crate::kit::{Home, PATIENCE, id, order, refusal};

const MISMATCH: &str = "IdempotentParameterMismatch";

fn launch(home: &Home) -> JoinHandle<Result<Launched, LaunchError>> {
    let provider = home.provider.clone();
    tokio::spawn(async move { provider.launch(order("l-1", Shape::default())).await })
}

async fn launched(launch: JoinHandle<Result<Launched, LaunchError>>) -> Launched {
    let launched = tokio::time::timeout(PATIENCE, launch).await.unwrap();
    launched.unwrap().unwrap()
}

/// Begins a launch that has no answer, and lets the coordinator come back half an hour later and more.
/// Gives the token.
async fn long_ago(home: Home, effect: Effect) -> (Home, String) {
    home.aws
        .inject(Fault::times("CreateFleet", u32::MAX, effect));
    let begun = launch(&home);
    let called = || !home.aws.calls_of("CreateFleet").is_empty();
    home.until("the call", called).await;
    let account = "main".into();
    let rows = home.store.launch_batches(&account, Timestamp::UNIX_EPOCH);
    let mut row = rows.await.unwrap().remove(0);
    let mut record: serde_json::Value = serde_json::from_str(&row.record).unwrap();
    let old = Timestamp::now() - SignedDuration::from_mins(33);
    record["created_at"] = old.to_string().into();
    row.record = record.to_string();
    let token = row.token.clone();
    home.store.put_launch_batch(row).await.unwrap();
    let home = home.crash().await;
    begun.abort();
    home.aws.clear_faults();
    (home, token)
}

#[tokio::test]
async fn a_launch_of_long_ago_that_made_nothing_is_begun_anew() {
    let (home, old) = long_ago(Home::start().await, Effect::HangUp).await;
    let instance = id(&home.launch("l-1").await);
    let instance = home.aws.instance(instance.as_str()).unwrap();
    // EC2 may have forgotten the old one, and would not say so.
    assert_ne!(instance.client_token, Some(old));
    assert_eq!(home.aws.instances().len(), 1);
    home.no_violations();
}

#[tokio::test]
async fn what_a_launch_of_long_ago_made_is_found_by_its_tag() {
    let (home, old) = long_ago(Home::start().await, Effect::LoseAnswer).await;
    let calls = home.aws.calls_of("CreateFleet").len();
    let instance = id(&home.launch("l-1").await);
    let instance = home.aws.instance(instance.as_str()).unwrap();
    assert_eq!(instance.client_token, Some(old));
    assert_eq!(home.aws.instances().len(), 1);
    let now = home.aws.calls_of("CreateFleet").len();
    assert_eq!(now, calls, "it is not asked for again");
    home.no_violations();
}

#[tokio::test]
async fn what_a_used_token_made_is_looked_for_until_it_shows() {
    let stages = Stages {
        unknown: std::time::Duration::from_secs(3_600),
        ..Stages::default()
    };
    let options = Options {
        stages,
        ..Options::default()
    };
    let home = Home::with(options, |_| {}).await;
    home.aws
        .inject(Fault::next("CreateFleet", Effect::LoseAnswer));
    home.aws
        .inject(Fault::times("CreateFleet", u32::MAX, refusal(MISMATCH)));
    let launch = launch(&home);
    let looked = || home.served("DescribeInstances") >= 2;
    home.until("two looks", looked).await;
    let made = home.aws.instances().remove(0).id;
    home.aws.reveal(&made);
    assert_eq!(launched(launch).await.instance.as_str(), made);
    assert_eq!(home.aws.instances().len(), 1);
    home.no_violations();
}

#[tokio::test]
async fn a_used_token_that_made_nothing_is_replaced() {
    let home = Home::start().await;
    home.aws.inject(Fault::next("CreateFleet", Effect::HangUp));
    home.aws
        .inject(Fault::next("CreateFleet", refusal(MISMATCH)));
    id(&home.launch("l-1").await);
    assert_eq!(home.aws.instances().len(), 1);
    assert!(home.served("DescribeInstances") > 1, "one look is no proof");
    home.no_violations();
}
