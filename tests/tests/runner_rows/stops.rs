//! The agent stops the runner: drained, retired, interrupted, shut down.

use std::time::Duration;

use muster_proto::v1::RunnerOutcome::{Interrupted, Unused};
use muster_tests::scripted::host::jit_config;
use serde_json::json;

use crate::kit::{By, LISTENS, RUNS, Row};

#[tokio::test]
async fn an_idle_runner_is_drained_and_retired() {
    let mut row = Row::begin("", json!({})).await;
    row.reach("listening").await;
    row.drain(None).await;
    row.reach("idle").await;
    row.retire().await;
    let played = row.play().await;
    let told = format!("{LISTENS} idle");
    played.is(&told, Unused, By::Code(0), "its registration was deleted");
}

#[tokio::test]
async fn a_busy_runner_is_interrupted_before_its_deadline_and_runs_no_more_of_its_job_2595() {
    let scenario = "idle = { assign = 5 }\n[job.script]\nsteps = ['touch {at}/runs; sleep 600', \
                    { run = 'touch {at}/always', condition = 'always' }]\n";
    let mut row = Row::begin_with(scenario, json!({}), &jit_config(), |host| {
        let hook = host.path("completed.sh");
        let at = host.dir.path().display();
        std::fs::write(&hook, format!("touch {at}/completed\n")).unwrap();
        host.config["runner_environment"] = json!({"ACTIONS_RUNNER_HOOK_JOB_COMPLETED": hook});
    })
    .await;
    row.appears("runs").await;
    row.configure(Duration::from_millis(300), Duration::from_secs(20))
        .await;
    row.drain(Some(Duration::from_millis(600))).await;
    row.reach("busy").await;
    let played = row.play().await;
    let told = format!("{RUNS} busy");
    played.is(&told, Interrupted, By::Code(0), "about to be taken away");
    for name in ["always", "completed"] {
        assert!(!played.host.path(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn a_worker_that_hears_nothing_is_killed_after_its_grace() {
    let scenario = "idle = { assign = 5 }\n[job.script]\nworker = 'hang'\n";
    let mut row = Row::begin(scenario, json!({"stop_grace": 0.3})).await;
    row.reach("running").await;
    row.shut_down().await;
    let played = row.play().await;
    played.is(RUNS, Interrupted, By::Signal(9), "the coordinator asked");
}

#[tokio::test]
async fn a_sigint_that_is_swallowed_at_the_start_is_sent_again_2582() {
    let scenario = "speed = 1.0\nconnect_ms = 1\nsession_ms = 600000\ndeaf_ms = 500\n";
    let mut row = Row::begin(scenario, json!({})).await;
    row.reach("connected").await;
    row.retire().await;
    let played = row.play().await;
    played.is(
        "starting connected",
        Unused,
        By::Code(0),
        "registration was deleted",
    );
}

#[tokio::test]
async fn a_runner_that_is_told_to_stop_while_its_job_hangs_unfetched_stops() {
    let scenario = "idle = { assign = 5 }\nassign = 'acquire_hang'\n";
    let mut row = Row::begin(scenario, json!({})).await;
    row.reach("assigned").await;
    row.drain(None).await;
    row.reach("busy").await;
    row.shut_down().await;
    let played = row.play().await;
    let told = "starting connected listening assigned busy";
    played.is(told, Interrupted, By::Code(0), "the coordinator asked");
}
