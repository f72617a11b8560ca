//! The Listener and the Worker, killed from outside in every phase.

use muster_proto::v1::RunnerOutcome::{self, Failed, Lost, StartFailed, Unused};
use nix::sys::signal::Signal::{self, SIGABRT, SIGKILL, SIGTERM};
use rstest::rstest;
use serde_json::json;

use crate::kit::{By, LISTENS, RUNS, Row};

/// A job that waits for the file `go`.
const WAITS: &str = "idle = { assign = 5 }\n[job.script]\nsteps = ['touch {at}/runs; \
                     while [ ! -e {at}/go ]; do sleep 0.01; done; touch {at}/done']\n";

#[rstest]
#[case::starting(
    "speed = 1.0\nconnect_ms = 600000",
    "starting",
    "starting",
    SIGKILL,
    StartFailed
)]
#[case::connected(
    "speed = 1.0\nconnect_ms = 1\nsession_ms = 600000",
    "connected",
    "starting connected",
    SIGKILL,
    StartFailed
)]
#[case::listening("", "listening", LISTENS, SIGKILL, Unused)]
#[case::abort("", "listening", LISTENS, SIGABRT, Unused)]
#[case::assigned(
    "idle = { assign = 5 }\nassign = 'acquire_hang'",
    "assigned",
    "starting connected listening assigned",
    SIGKILL,
    Lost
)]
#[case::acquired(
    "idle = { assign = 5 }\nassign = 'no_worker'",
    "running",
    RUNS,
    SIGKILL,
    Lost
)]
#[tokio::test]
async fn a_listener_killed_without_a_worker_is_at_its_end(
    #[case] scenario: &str,
    #[case] phase: &str,
    #[case] told: &str,
    #[case] signal: Signal,
    #[case] outcome: RunnerOutcome,
) {
    let mut row = Row::begin(scenario, json!({})).await;
    row.reach(phase).await;
    row.signal("Runner.Listener", signal);
    let words = told.rsplit(' ').next().unwrap();
    row.play()
        .await
        .is(told, outcome, By::Signal(signal as i32), words);
}

#[rstest]
#[case::killed_3929(SIGKILL)]
#[case::crashed(SIGABRT)]
#[tokio::test]
async fn the_worker_of_a_killed_listener_may_finish_its_job(#[case] signal: Signal) {
    let mut row = Row::begin(WAITS, json!({})).await;
    row.appears("runs").await;
    row.signal("Runner.Listener", signal);
    row.reach("!orphaned_worker").await;
    row.drain(None).await;
    row.reach("busy").await;
    row.touch("go");
    row.appears("done").await;
    let played = row.play().await;
    let told = format!("{RUNS} !orphaned_worker busy");
    played.is(&told, Lost, By::Signal(signal as i32), "and then ended");
}

#[tokio::test]
async fn the_worker_of_a_killed_listener_has_as_long_as_its_lock() {
    let row = Row::begin(WAITS, json!({"orphaned_worker": 0.3})).await;
    row.appears("runs").await;
    row.signal("Runner.Listener", SIGKILL);
    let played = row.play().await;
    let told = format!("{RUNS} !orphaned_worker");
    played.is(
        &told,
        Lost,
        By::Signal(9),
        "was killed, as its lock is lost",
    );
}

#[tokio::test]
async fn a_listener_that_sigterm_cut_short_leaves_its_worker_too() {
    let scenario = "idle = { assign = 5 }\n[job.script]\nworker = 'hang'\n";
    let mut row = Row::begin(scenario, json!({"orphaned_worker": 0.3})).await;
    row.reach("running").await;
    row.appears("work/job/perf/Worker.perf").await;
    muster_tests::scripted::until("the set-up", || {
        row.host
            .read("work/job/perf/Worker.perf")
            .contains("WorkerJobInitialized")
    })
    .await;
    row.signal("Runner.Listener", SIGTERM);
    let played = row.play().await;
    let told = format!("{RUNS} !orphaned_worker");
    played.is(&told, Lost, By::Code(143), "code 143");
}

#[rstest]
#[case::killed_921(SIGKILL)]
#[case::crashed(SIGABRT)]
#[tokio::test]
async fn a_killed_worker_is_a_failed_job(#[case] signal: Signal) {
    let row = Row::begin(WAITS, json!({})).await;
    row.appears("runs").await;
    row.signal("Runner.Worker", signal);
    row.play()
        .await
        .is(RUNS, Failed, By::Code(102), "result was Failed");
}
