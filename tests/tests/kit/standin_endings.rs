//! How the stand-in runner ends: exit codes and lines (golden).

use rstest::rstest;
use tokio::process::Command;

use crate::runner::{CONNECTED, LISTENING, REMOVED, Root, code, ended, lines, run, with_result};

#[rstest]
#[case::deleted_while_idle("idle = { deleted = 5 }", 0, &[CONNECTED, LISTENING, REMOVED],
    "The runner no longer exists on the server. Cleaning up local configuration.\n")]
#[case::token_revoked("idle = { revoked = 5 }", 0, &[CONNECTED, LISTENING], "")]
#[case::version_too_old("idle = { deprecated = 5 }", 1, &[CONNECTED, LISTENING],
    "An error occurred: Runner version v2.336.0 is deprecated and cannot receive messages.\n")]
#[case::ten_failed_polls("speed = 100000.0\nidle = { poll_errors = 10 }", 2, &[CONNECTED, LISTENING],
    "TS: Runner connect error: The HTTP request timed out after 00:01:40.. Retrying until reconnected.\n\
     An error occurred: The HTTP request timed out after 00:01:40.\n")]
#[case::updating("idle = { update = 5 }", 4, &[CONNECTED, LISTENING,
    "Runner update in progress, do not shutdown runner.\nDownloading 2.999.0 runner\n\
     Waiting for current job finish running.\nGenerate and execute update script.\n\
     Runner will exit shortly for update, should be back online within 10 seconds.\n\
     Runner update process finished.\n"], "")]
#[case::conflict_that_ends("start = { conflict = 1 }\nidle = { revoked = 5 }", 0,
    &[CONNECTED, CONNECTED, "TS: Runner reconnected.\n", LISTENING],
    "A session for this runner already exists.\n\
     TS: Runner connect error: Error: Conflict. Retrying until reconnected.\n")]
#[case::forbidden("start = 'forbidden'", 1, &[CONNECTED],
    "Failed to create session. Error: Forbidden\n")]
#[case::blob_of_a_deleted_runner("start = 'registration_deleted'", 1, &[CONNECTED],
    "Failed to create a session. The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently.\n")]
#[case::job_gone_on_acknowledge("idle = { assign = 5 }\nassign = 'ack_gone'", 0,
    &[CONNECTED, LISTENING, REMOVED], "")]
#[tokio::test]
async fn the_listener_ends_as_the_real_one(
    #[case] scenario: &str,
    #[case] code: i32,
    #[case] out: &[&str],
    #[case] err: &str,
) {
    let (_, ended) = run(scenario, |_| {}).await;
    assert_eq!(ended, (code, lines(out), err.to_owned()));
}

#[tokio::test]
async fn eight_conflicts_end_with_code_5() {
    let (_, (code, out, err)) = run("speed = 100000.0\nstart = { conflict = 99 }", |_| {}).await;
    assert_eq!((code, out), (5, CONNECTED.repeat(8)));
    let said = "A session for this runner already exists.\n";
    assert_eq!(err.matches(said).count(), 8);
    assert_eq!(err.matches("Runner connect error").count(), 1);
    assert!(err.ends_with(
        "Stop retry on SessionConflictException after retried for 240 seconds.\n\
         Failed to create session. Error: Conflict\n"
    ));
}

#[tokio::test]
async fn a_deprecated_version_exits_7_when_asked_to() {
    let flag = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";
    let (_, (code, ..)) = run("idle = { deprecated = 5 }", |command| {
        command.env(flag, "1");
    })
    .await;
    assert_eq!(code, 7);
}

#[rstest]
#[case::no_base64("§§§", "Base-64")]
#[case::no_json("bm90IGpzb24=", "parsing value")]
#[tokio::test]
async fn a_bad_blob_exits_1_and_says_why(#[case] blob: &str, #[case] why: &str) {
    let root = Root::new("");
    let (code, out, err) = ended(root.with_blob(blob).spawn().unwrap()).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(why), "{err}");
}

#[tokio::test]
async fn without_a_configuration_it_exits_1() {
    let root = Root::new("");
    let expected =
        "An error occurred: Not configured. Run config.(sh/cmd) to configure the runner.\n";
    assert_eq!(
        ended(root.command().spawn().unwrap()).await,
        (1, String::new(), expected.to_owned())
    );
}

#[tokio::test]
async fn it_says_its_version() {
    let root = Root::new("");
    let mut command = Command::new(root.file("bin/Runner.Listener"));
    let output = command.arg("--version").output().await.unwrap();
    assert_eq!(
        (code(output.status), output.stdout.as_slice()),
        (0, b"2.336.0\n".as_slice())
    );
}

#[rstest]
#[case::succeeds("['true']", 100, "Succeeded")]
#[case::fails("['false']", 102, "Failed")]
#[tokio::test]
async fn a_job_ends_with_its_line_and_code(
    #[case] steps: &str,
    #[case] expected: i32,
    #[case] result: &str,
) {
    let scenario = format!("idle = {{ assign = 5 }}\n[job.script]\nsteps = {steps}\n");
    let (root, ended) = run(&scenario, with_result).await;
    let out = lines(&[
        CONNECTED,
        LISTENING,
        "TS: Running job: build\n",
        &format!("TS: Job build completed with result: {result}\n"),
        REMOVED,
    ]);
    assert_eq!(ended, (expected, out, String::new()));
    let (_, (without_flag, ..)) = run(&scenario, |_| {}).await;
    assert_eq!(without_flag, 0, "without the variable every result is 0");
    assert_eq!(
        root.perf("Runner.perf"),
        [
            "RunnerProcessStarted",
            "SessionCreated",
            "MessageReceived_RunnerJobRequest",
            "JobRequestRenewed_1",
            "StartingWorkerProcess",
            "RunnerSendingJobToWorker_8a1d1f4e-6a1b-5c3f-9d0e-2b7c4d5e6f70",
            "SentJobToWorker_1",
        ]
    );
    assert!(
        root.perf("Worker.perf")
            .contains(&"WorkerJobInitialized_1".to_owned())
    );
    assert!(!root.exists(".runner") && !root.exists(".credentials_rsaparams"));
}

#[rstest]
#[case::setup_fails("setup_fails = true", 102, true)]
#[case::worker_crashes("worker = 'crash'", 102, true)]
#[case::worker_killed("worker = 'killed'", 102, true)]
#[case::disk_full("worker = 'disk_full'", 102, true)]
#[tokio::test]
async fn a_worker_that_fails_is_a_failed_job(
    #[case] script: &str,
    #[case] expected: i32,
    #[case] has_line: bool,
) {
    let scenario = format!("idle = {{ assign = 5 }}\n[job.script]\n{script}\n");
    let (_, (code, out, _)) = run(&scenario, with_result).await;
    assert_eq!(code, expected);
    assert_eq!(
        out.contains("completed with result: Failed"),
        has_line,
        "{out}"
    );
}

#[rstest]
#[case::renewal_fails("renew_fail", 105, false)]
#[case::worker_deaf("ipc_timeout", 102, true)]
#[tokio::test]
async fn a_job_given_up_has_no_result_line(
    #[case] assign: &str,
    #[case] expected: i32,
    #[case] worker_started: bool,
) {
    let scenario = format!("idle = {{ assign = 5 }}\nassign = '{assign}'\n");
    let (root, (code, out, _)) = run(&scenario, with_result).await;
    assert_eq!(code, expected);
    assert!(
        out.contains("Running job: build") && !out.contains("completed"),
        "{out}"
    );
    let perf = root.perf("Runner.perf");
    assert_eq!(
        perf.contains(&"StartingWorkerProcess".to_owned()),
        worker_started
    );
    assert!(!perf.contains(&"SentJobToWorker_1".to_owned()));
}
