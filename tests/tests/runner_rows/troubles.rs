//! Every trouble in which a runner goes on, said once per streak.

use muster_proto::v1::RunnerOutcome::{self, Canceled, Lost, Succeeded, Unused};
use rstest::rstest;
use serde_json::json;

use crate::kit::{By, LISTENS, RUNS, Row};

#[rstest]
#[case::conflict_that_ends("start = { conflict = 2 }", "starting connected !conflict listening")]
#[case::no_server_for_a_while(
    "start = { unreachable = 2 }",
    "starting connected !connection listening"
)]
#[tokio::test]
async fn a_runner_that_listens_in_the_end_is_a_good_one(#[case] start: &str, #[case] told: &str) {
    let scenario = format!("{start}\nidle = {{ revoked = 5 }}\n");
    let played = Row::begin(&scenario, json!({})).await.play().await;
    played.is(told, Unused, By::Code(0), "phase listening");
}

#[tokio::test]
async fn ten_failed_polls_end_the_runner_and_none_is_started_again_2286() {
    let scenario = "speed = 100000.0\nidle = { poll_errors = 10 }\n";
    let played = Row::begin(scenario, json!({})).await.play().await;
    let told = format!("{LISTENS} !connection");
    played.is(&told, Unused, By::Code(2), "request timed out");
}

#[rstest]
#[case::renewal_3539(
    "renewal = ['ResetJobRenewConnection', 'JobRenewReachLimit']",
    "['true']",
    "!renewal",
    Succeeded,
    100
)]
#[case::renewal_twice(
    "renewal = ['JobRenewReachLimit', 'JobRenewRecovered', 'JobRenewReachLimit']",
    "['true']",
    "!renewal !renewal",
    Succeeded,
    100
)]
#[case::cancellation_storm_4076(
    "cancel_after_ms = 20000\ncancel_storm = 50",
    "['sleep 600']",
    "!cancellation_storm",
    Canceled,
    103
)]
#[case::polls_fail_in_the_job_3823(
    "in_job = { poll_errors = 50000 }",
    "['sleep 600']",
    "!connection",
    Lost,
    2
)]
#[tokio::test]
async fn trouble_in_a_job_is_said(
    #[case] what: &str,
    #[case] steps: &str,
    #[case] trouble: &str,
    #[case] outcome: RunnerOutcome,
    #[case] code: i32,
) {
    let scenario = format!("idle = {{ assign = 5 }}\n{what}\n[job.script]\nsteps = {steps}\n");
    let played = Row::begin(&scenario, json!({})).await.play().await;
    let told = format!("{RUNS} {trouble}");
    played.is(&told, outcome, By::Code(code), "running");
}
