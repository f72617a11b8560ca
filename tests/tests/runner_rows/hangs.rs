//! Every known hang, ended by its watchdog.

use muster_proto::v1::RunnerOutcome::{
    self, Canceled, Conflict, Interrupted, Lost, StartFailed, Succeeded,
};
use muster_tests::scripted::host::jit_config;
use rstest::rstest;
use serde_json::json;

use crate::kit::{By, RUNS, Row};

#[rstest]
#[case::acquire_hang_4668(
    "assign = 'acquire_hang'",
    "acquire",
    "starting connected listening assigned",
    Lost,
    By::Code(0),
    "did not begin it in time"
)]
#[case::acquire_lost_4617(
    "assign = 'acquire_lost'",
    "acquire",
    "starting connected listening assigned",
    Lost,
    By::Code(0),
    "did not begin it in time"
)]
#[case::no_worker(
    "assign = 'no_worker'",
    "worker_start",
    RUNS,
    Lost,
    By::Code(0),
    "no worker"
)]
#[case::worker_never_reads_its_job_1795(
    "assign = 'ipc_hang'",
    "worker_message",
    RUNS,
    Lost,
    By::Code(0),
    "did not read the job"
)]
#[case::cancellation_without_effect_4444(
    "cancel_after_ms = 20000\ncancel_timeout_ms = 100000000\n[job.script]\nworker = 'hang'",
    "cancel",
    RUNS,
    Canceled,
    By::Signal(9),
    "was cancelled and did not end"
)]
#[case::no_exit_after_the_result(
    "finish_ms = 100000000\n[job.script]\nsteps = ['true']",
    "exit_after_result",
    RUNS,
    Succeeded,
    By::Code(100),
    "did not end after its job"
)]
#[tokio::test]
async fn a_job_that_hangs_is_ended(
    #[case] what: &str,
    #[case] limit: &str,
    #[case] told: &str,
    #[case] outcome: RunnerOutcome,
    #[case] by: By,
    #[case] reason: &str,
) {
    let scenario = format!("idle = {{ assign = 5 }}\n{what}\n");
    let grace = if by == By::Signal(9) { 0.3 } else { 20.0 };
    let limits = json!({limit: 0.3, "hang_grace": grace});
    let played = Row::begin(&scenario, limits).await.play().await;
    played.is(told, outcome, by, reason);
}

#[rstest]
#[case::unreachable(
    "speed = 1.0\nconnect_ms = 1\nstart = { unreachable = 999 }",
    "connect",
    "starting connected !connection",
    StartFailed
)]
#[case::never_connects("speed = 1.0\nconnect_ms = 600000", "connect", "starting", StartFailed)]
#[case::no_session(
    "speed = 1.0\nconnect_ms = 1\nsession_ms = 600000",
    "connect",
    "starting connected",
    StartFailed
)]
#[case::conflict_without_end_2809(
    "speed = 1.0\nconnect_ms = 1\nsession_ms = 1\nstart = { conflict = 999 }",
    "connect_after_conflict",
    "starting connected !conflict",
    Conflict
)]
#[tokio::test]
async fn a_runner_that_does_not_listen_is_ended(
    #[case] scenario: &str,
    #[case] limit: &str,
    #[case] told: &str,
    #[case] outcome: RunnerOutcome,
) {
    let played = Row::begin(scenario, json!({limit: 5})).await.play().await;
    played.is(told, outcome, By::Code(0), "did not listen in time");
}

#[tokio::test]
async fn a_worker_that_is_wedged_after_its_last_step_is_ended_4418() {
    let scenario = "idle = { assign = 5 }\n[job.script]\nworker = 'wedge'\nsteps = ['true']\n";
    let row = Row::begin_with(
        scenario,
        json!({"worker_exit": 0.3, "hang_grace": 0.3}),
        &jit_config(),
        |host| {
            let hook = host.path("completed.sh");
            std::fs::write(
                &hook,
                "echo MusterStepsDone: >> $RUNNER_PERFLOG/Worker.perf\n",
            )
            .unwrap();
            host.config["runner_environment"] = json!({"ACTIONS_RUNNER_HOOK_JOB_COMPLETED": hook});
        },
    )
    .await;
    let played = row.play().await;
    played.is(
        RUNS,
        Lost,
        By::Signal(9),
        "did not end after the job's last step",
    );
}

#[tokio::test]
async fn a_setup_that_takes_long_is_said_and_goes_on() {
    let scenario = "speed = 1.0\nconnect_ms = 1\nsession_ms = 1\nacquire_ms = 1\n\
                    idle = { assign = 5 }\n[job.script]\nsetup_ms = 600000\n";
    let mut row = Row::begin(scenario, json!({"setup": 0.1})).await;
    row.reach("!slow_setup").await;
    row.shut_down().await;
    let played = row.play().await;
    let told = format!("{RUNS} !slow_setup");
    played.is(&told, Interrupted, By::Code(0), "told to stop");
}
