//! Every exit code of the Listener, with each of its causes (Constants.cs:150-163).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use muster_proto::v1::RunnerOutcome::{
    self, Abandoned, Canceled, Conflict, Failed, Lost, StaleVersion, StartFailed, Succeeded,
    Unused, VersionRefused,
};
use rstest::rstest;
use serde_json::json;

use crate::kit::{By, LISTENS, RUNS, Row};

#[rstest]
#[case::succeeded("steps = ['true']", 100, Succeeded, "code 100")]
#[case::succeeded_with_issues("result = 'SucceededWithIssues'", 101, Succeeded, "code 101")]
#[case::failed("steps = ['false']", 102, Failed, "result was Failed")]
#[case::skipped("result = 'Skipped'", 104, Succeeded, "result was Skipped")]
#[case::setup_fails("setup_fails = true", 102, Failed, "result was Failed")]
#[case::worker_crashes("worker = 'crash'", 102, Failed, "result was Failed")]
#[case::worker_killed_for_want_of_memory_921("worker = 'killed'", 102, Failed, "result was Failed")]
#[case::worker_finds_the_disk_full_1807("worker = 'disk_full'", 102, Failed, "result was Failed")]
#[tokio::test]
async fn a_job_that_ends_by_itself_ends_with_its_result(
    #[case] script: &str,
    #[case] code: i32,
    #[case] outcome: RunnerOutcome,
    #[case] reason: &str,
) {
    let scenario = format!("idle = {{ assign = 5 }}\n[job.script]\n{script}\n");
    let played = Row::begin(&scenario, json!({})).await.play().await;
    played.is(RUNS, outcome, By::Code(code), reason);
    assert_eq!(played.job(), "build");
}

#[rstest]
#[case::cancelled("cancel_after_ms = 20000", 103, Canceled, "result was Canceled")]
#[case::lock_lost_4635("in_job = { abandon = 50000 }", 105, Abandoned, "result was Abandoned")]
#[case::first_renewal_fails("assign = 'renew_fail'", 105, Abandoned, "without a word")]
#[case::worker_never_reads_its_job_4598("assign = 'ipc_timeout'", 102, Lost, "without a word")]
#[case::listener_throws("in_job = { throw = 50000 }", 100, Lost, "without a word")]
#[case::deleted_while_busy("in_job = { deleted = 50000 }", 0, Lost, "no longer exists")]
#[case::refused_in_its_job_3366("in_job = { deprecated = 50000 }", 7, VersionRefused, "running")]
#[tokio::test]
async fn a_job_that_is_broken_off_ends_with_the_truth(
    #[case] what: &str,
    #[case] code: i32,
    #[case] outcome: RunnerOutcome,
    #[case] reason: &str,
) {
    let scenario =
        format!("idle = {{ assign = 5 }}\n{what}\n[job.script]\nsteps = ['sleep 600']\n");
    let played = Row::begin(&scenario, json!({})).await.play().await;
    played.is(RUNS, outcome, By::Code(code), reason);
}

#[rstest]
#[case::deleted_while_idle("{ deleted = 5 }", 0, Unused, "no longer exists on the server")]
#[case::token_revoked("{ revoked = 5 }", 0, Unused, "code 0 in the phase listening")]
#[case::poll_refused("{ poll_refused = 5 }", 1, Unused, "non-retryable error")]
#[case::update_staged("{ update = 5 }", 4, StaleVersion, "the image is stale")]
#[case::version_refused_4613("{ deprecated = 5 }", 7, VersionRefused, "refuses this version")]
#[tokio::test]
async fn an_idle_runner_ends_unused_or_says_why(
    #[case] idle: &str,
    #[case] code: i32,
    #[case] outcome: RunnerOutcome,
    #[case] reason: &str,
) {
    let scenario = format!("idle = {idle}\n");
    let played = Row::begin(&scenario, json!({})).await.play().await;
    played.is(LISTENS, outcome, By::Code(code), reason);
    assert_eq!(played.job(), "");
}

#[tokio::test]
async fn a_job_that_is_gone_at_its_acknowledgement_leaves_the_runner_unused_4540() {
    let scenario = "idle = { assign = 5 }\nassign = 'ack_gone'\n";
    let played = Row::begin(scenario, json!({})).await.play().await;
    let told = "starting connected listening assigned";
    played.is(told, Unused, By::Code(0), "code 0 in the phase assigned");
}

#[rstest]
#[case::forbidden("start = 'forbidden'", "starting connected", "Error: Forbidden")]
#[case::registration_deleted_4588(
    "start = 'registration_deleted'",
    "starting connected",
    "registration has been deleted"
)]
#[case::clock_skew("start = 'clock_skew'", "starting connected !connection", "clock skew")]
#[tokio::test]
async fn a_runner_without_a_session_could_not_start(
    #[case] scenario: &str,
    #[case] told: &str,
    #[case] reason: &str,
) {
    let played = Row::begin(scenario, json!({})).await.play().await;
    played.is(told, StartFailed, By::Code(1), reason);
}

#[tokio::test]
async fn eight_conflicts_are_a_conflict_1506() {
    let scenario = "speed = 100000.0\nstart = { conflict = 99 }\n";
    let played = Row::begin(scenario, json!({})).await.play().await;
    let told = "starting connected !conflict";
    played.is(told, Conflict, By::Code(5), "another session");
}

#[tokio::test]
async fn an_incomplete_configuration_can_not_start() {
    let files = json!({".credentials": "e30="});
    let blob = BASE64_STANDARD.encode(files.to_string());
    let row = Row::begin_with("", json!({}), &blob, |_| {}).await;
    let played = row.play().await;
    played.is("starting", StartFailed, By::Code(1), "Not configured");
}

#[tokio::test]
async fn a_work_directory_that_can_not_be_made_can_not_start() {
    let blob = muster_tests::scripted::host::jit_config();
    let row = Row::begin_with("", json!({}), &blob, |host| {
        std::fs::write(host.path("runner/_work"), "a file").unwrap();
    })
    .await;
    let played = row.play().await;
    played.is("starting", StartFailed, By::Code(1), "work directory");
}

#[rstest]
#[case::missing("{at}/missing.sh", None)]
#[case::failing("{at}/hook.sh", Some("exit 3\n"))]
#[tokio::test]
async fn a_started_hook_that_does_not_succeed_fails_the_job(
    #[case] path: &str,
    #[case] content: Option<&str>,
) {
    let scenario = "idle = { assign = 5 }\n[job.script]\nsteps = ['touch {at}/step']\n";
    let blob = muster_tests::scripted::host::jit_config();
    let row = Row::begin_with(scenario, json!({}), &blob, |host| {
        let path = path.replace("{at}", &host.dir.path().display().to_string());
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        host.config["runner_environment"] = json!({"ACTIONS_RUNNER_HOOK_JOB_STARTED": path});
    })
    .await;
    let played = row.play().await;
    played.is(RUNS, Failed, By::Code(102), "result was Failed");
    assert!(!played.host.path("step").exists());
}
