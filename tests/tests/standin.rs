//! The stand-in runner against what is known of the real one: exit codes, lines, signals, files.

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::fakes::github::{Conclusion, JobSpec, Options, Status};
use muster_tests::standin::install_runner;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use support::{App, PATIENCE};

const CONNECTED: &str = "\n√ Connected to GitHub\n\n";
const LISTENING: &str = "Current runner version: '2.336.0'\nTS: Listening for Jobs\n";
const REMOVED: &str = "√ Removed .credentials\n√ Removed .runner\n";

/// A runner's root with a scenario.
struct Root {
    folder: TempDir,
}

impl Root {
    fn new(scenario: &str) -> Self {
        let folder = TempDir::new().unwrap();
        install_runner(folder.path()).unwrap();
        // Fast, unless the scenario says otherwise.
        let speed = if scenario.contains("speed") {
            ""
        } else {
            "speed = 1000.0\n"
        };
        std::fs::write(
            folder.path().join("scenario.toml"),
            format!("{speed}{scenario}"),
        )
        .unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.path().join("bin/Runner.Listener"));
        command
            .arg("run")
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("RUNNER_PERFLOG", self.path().join("perf"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn with_blob(&self, blob: &str) -> Command {
        let mut command = self.command();
        command.env("ACTIONS_RUNNER_INPUT_JITCONFIG", blob);
        command
    }

    fn perf(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join("perf").join(name)).unwrap_or_default();
        text.lines()
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect()
    }

    fn exists(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// A blob without a server.
fn blob() -> String {
    let settings = json!({ "AgentId": "3", "AgentName": "r-1", "WorkFolder": "_work" });
    let files = json!({
        ".runner": STANDARD.encode(settings.to_string()),
        ".credentials": STANDARD.encode(r#"{"Scheme":"OAuth","Data":{"ClientId":"x"}}"#),
        ".credentials_rsaparams": STANDARD.encode("{}"),
    });
    STANDARD.encode(files.to_string())
}

/// Exit code, stdout and stderr with times replaced by `TS`.
type Ended = (i32, String, String);

async fn ended(mut child: Child) -> Ended {
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take().unwrap());
    let read = async {
        if let Some(stdout) = &mut stdout {
            stdout.read_to_string(&mut out).await.unwrap();
        }
        stderr.read_to_string(&mut err).await.unwrap();
        child.wait().await.unwrap()
    };
    let status = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the listener ends");
    (code(status), without_times(&out), without_times(&err))
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// `yyyy-MM-dd HH:mm:ssZ` at the beginning of a line becomes `TS`.
fn without_times(text: &str) -> String {
    let line = |line: &str| match line.get(..20) {
        Some(time) if time.ends_with('Z') && time.as_bytes()[10] == b' ' => {
            format!("TS{}\n", &line[20..])
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

async fn run(scenario: &str, with: impl FnOnce(&mut Command)) -> (Root, Ended) {
    let root = Root::new(scenario);
    let mut command = root.with_blob(&blob());
    with(&mut command);
    let ended = ended(command.spawn().unwrap()).await;
    (root, ended)
}

fn with_result(command: &mut Command) {
    command.env("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "1");
}

fn lines(parts: &[&str]) -> String {
    parts.concat()
}

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
        _ = command.env(flag, "1")
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

/// Reads stdout up to a line that contains `part`.
async fn read_until(child: &mut Child, part: &str) -> BufReader<tokio::process::ChildStdout> {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let found = async {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(
                reader.read_line(&mut line).await.unwrap(),
                0,
                "ended before {part:?}"
            );
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect(part);
    reader
}

async fn rest(mut reader: BufReader<tokio::process::ChildStdout>, child: Child) -> Ended {
    let mut out = String::new();
    let (code, _, err) = {
        let read = async { reader.read_to_string(&mut out).await.unwrap() };
        let (_, ended) = tokio::join!(read, ended(child));
        ended
    };
    (code, without_times(&out), err)
}

fn signal(child: &Child, signal: Signal) {
    kill(
        Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()),
        signal,
    )
    .unwrap();
}

/// Waits until a file is there: a step's way to say that it runs.
async fn appears(file: &Path) {
    let there = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there)
        .await
        .expect("the file appears");
}

#[rstest]
#[case::interrupt(Signal::SIGINT, 0, "Exiting...\n")]
#[case::quit(Signal::SIGQUIT, 0, "Exiting...\n")]
#[case::terminate(Signal::SIGTERM, 0, "")]
#[case::hang_up(Signal::SIGHUP, 129, "")]
#[tokio::test]
async fn an_idle_listener_obeys_signals(
    #[case] number: Signal,
    #[case] code: i32,
    #[case] said: &str,
) {
    let root = Root::new("");
    let mut child = root.with_blob(&blob()).spawn().unwrap();
    let reader = read_until(&mut child, "Listening for Jobs").await;
    signal(&child, number);
    assert_eq!(
        rest(reader, child).await,
        (code, said.to_owned(), String::new())
    );
    assert!(root.exists(".runner"), "the configuration stays");
}

#[tokio::test]
async fn acquire_that_hangs_ends_by_sigint_only() {
    let root = Root::new("idle = { assign = 5 }\nassign = 'acquire_hang'\n");
    let mut child = root.with_blob(&blob()).spawn().unwrap();
    let perf = root.file("perf/Runner.perf");
    let assigned = async {
        while !std::fs::read_to_string(&perf)
            .unwrap_or_default()
            .contains("RunnerJobRequest")
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, assigned).await.unwrap();
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, Signal::SIGINT);
    let (code, out, _) = ended(child).await;
    assert_eq!(code, 0);
    assert!(
        out.ends_with("Exiting...\n") && !out.contains("Running job"),
        "{out}"
    );
}

/// A job whose only step says that it runs and then waits; hooks leave marks.
fn long_job(root: &Root, more: &str) -> String {
    let at = root.path().display();
    for hook in ["started", "completed"] {
        std::fs::write(
            root.file(&format!("{hook}.sh")),
            format!("env > {at}/{hook}.env\n"),
        )
        .unwrap();
    }
    format!(
        "speed = 100.0\nidle = {{ assign = 5 }}\n{more}\n[job.script]\nsteps = [\
         'touch {at}/running; sleep 600', \
         {{ run = 'touch {at}/always', condition = 'always' }}]\n"
    )
}

fn with_hooks(root: &Root) -> Command {
    let mut command = root.with_blob(&blob());
    command
        .env("ACTIONS_RUNNER_HOOK_JOB_STARTED", root.file("started.sh"))
        .env(
            "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
            root.file("completed.sh"),
        );
    with_result(&mut command);
    command
}

#[tokio::test]
async fn sigint_while_busy_skips_everything_and_exits_0() {
    let root = Root::new("");
    std::fs::write(root.file("scenario.toml"), long_job(&root, "")).unwrap();
    let mut child = with_hooks(&root).spawn().unwrap();
    let reader = read_until(&mut child, "Running job").await;
    appears(&root.file("running")).await;
    signal(&child, Signal::SIGINT);
    let (code, out, _) = rest(reader, child).await;
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "Exiting...\nTS: Job build completed with result: Canceled\n"
        )
    );
    assert!(root.exists("started.env"));
    assert!(!root.exists("always") && !root.exists("completed.env"));
    assert!(root.exists(".runner"));
    let started = std::fs::read_to_string(root.file("started.env")).unwrap();
    for line in ["GITHUB_REPOSITORY=acme/app", "RUNNER_NAME=r-1", "CI=true"] {
        assert!(started.lines().any(|it| it == line), "{line} in {started}");
    }
    assert!(!started.contains("JITCONFIG"));
}

#[tokio::test]
async fn a_cancelled_job_runs_always_steps_and_the_completed_hook() {
    let root = Root::new("");
    let scenario = long_job(&root, "cancel_after_ms = 20000");
    std::fs::write(root.file("scenario.toml"), scenario).unwrap();
    let child = with_hooks(&root).spawn().unwrap();
    let (code, out, _) = ended(child).await;
    assert_eq!(code, 103);
    assert!(
        out.contains("TS: Job build completed with result: Canceled\n"),
        "{out}"
    );
    assert!(root.exists("always") && root.exists("completed.env"));
}

#[tokio::test]
async fn a_worker_deaf_to_cancellation_is_killed() {
    let scenario = "speed = 5000.0\nidle = { assign = 5 }\ncancel_after_ms = 20000\n\
                    [job.script]\nworker = 'hang'\n";
    let (_, (code, out, _)) = run(scenario, with_result).await;
    assert_eq!(code, 103);
    assert!(out.contains("completed with result: Canceled"), "{out}");
}

#[tokio::test]
async fn a_failing_started_hook_fails_the_job_and_skips_its_steps() {
    let root = Root::new("");
    let at = root.path().display();
    let scenario = format!(
        "speed = 1000.0\nidle = {{ assign = 5 }}\n[job.script]\nsteps = ['touch {at}/step']\n"
    );
    std::fs::write(root.file("scenario.toml"), scenario).unwrap();
    std::fs::write(root.file("started.sh"), "exit 3\n").unwrap();
    std::fs::write(root.file("completed.sh"), format!("touch {at}/completed\n")).unwrap();
    let (code, ..) = ended(with_hooks(&root).spawn().unwrap()).await;
    assert_eq!(code, 102);
    assert!(!root.exists("step") && root.exists("completed"));
}

#[tokio::test]
async fn what_a_job_leaves_behind_is_swept_by_its_tracking_id() {
    let root = Root::new("");
    let at = root.path().display();
    let scenario = format!(
        "speed = 1000.0\nidle = {{ assign = 5 }}\n[job.script]\nsteps = [\
         'sleep 600 > /dev/null 2>&1 & echo $! > {at}/pid']\n"
    );
    std::fs::write(root.file("scenario.toml"), scenario).unwrap();
    let (code, ..) = ended(with_hooks(&root).spawn().unwrap()).await;
    assert_eq!(code, 100);
    let pid = std::fs::read_to_string(root.file("pid")).unwrap();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(" Z "), "{state}");
}

#[tokio::test]
async fn the_worker_goes_on_when_its_listener_is_killed() {
    let root = Root::new("");
    let at = root.path().display();
    let scenario = format!(
        "speed = 1000.0\nidle = {{ assign = 5 }}\n[job.script]\nsteps = [\
         'touch {at}/running; while [ ! -e {at}/go ]; do sleep 0.01; done; touch {at}/done']\n"
    );
    std::fs::write(root.file("scenario.toml"), scenario).unwrap();
    let child = root.with_blob(&blob()).spawn().unwrap();
    appears(&root.file("running")).await;
    signal(&child, Signal::SIGKILL);
    std::fs::write(root.file("go"), "").unwrap();
    appears(&root.file("done")).await;
}

#[tokio::test]
async fn an_inherited_ignored_sigint_is_never_seen() {
    let root = Root::new("");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", "trap '' INT; exec \"$0\" run"])
        .arg(root.file("bin/Runner.Listener"))
        .env("ACTIONS_RUNNER_INPUT_JITCONFIG", blob())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = shell.spawn().unwrap();
    let reader = read_until(&mut child, "Listening for Jobs").await;
    signal(&child, Signal::SIGINT);
    signal(&child, Signal::SIGTERM);
    assert_eq!(rest(reader, child).await, (0, String::new(), String::new()));
}

#[tokio::test]
async fn closed_output_changes_neither_the_job_nor_the_exit_code() {
    let root = Root::new("idle = { assign = 500 }\n[job.script]\nsteps = ['true']\n");
    let mut command = root.with_blob(&blob());
    with_result(&mut command);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let (code, ..) = ended(child).await;
    assert_eq!(code, 100);
}

/// A runner of the fake GitHub.
async fn connected(app: &App, name: &str, scenario: &str) -> (Root, Child) {
    let (_, blob) = app.register(name, &["linux"]).await;
    let root = Root::new(scenario);
    let mut command = root.with_blob(&blob);
    with_result(&mut command);
    let child = command.spawn().unwrap();
    (root, child)
}

#[rstest]
#[case::success("true", Conclusion::Success, 100)]
#[case::failure("false", Conclusion::Failure, 102)]
#[tokio::test]
async fn a_connected_runner_takes_one_job_and_is_gone(
    #[case] step: &str,
    #[case] conclusion: Conclusion,
    #[case] expected: i32,
) {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "").await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build it", &["Linux"]).step(step));
    let (code, out, _) = ended(child).await;
    assert_eq!(code, expected, "{out}");
    let job = app
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await
        .unwrap();
    assert_eq!(
        (job.conclusion, job.runner_name.as_deref()),
        (Some(conclusion), Some("r-1"))
    );
    assert!(app.github.runners().is_empty());
    app.assert_conforms();
}

#[tokio::test]
async fn a_connected_runner_is_told_of_a_cancellation() {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "speed = 200.0").await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["linux"]).step("sleep 600"));
    app.github
        .wait_job(job, Status::InProgress, PATIENCE)
        .await
        .unwrap();
    assert!(app.github.cancel_job(job));
    let (code, ..) = ended(child).await;
    assert_eq!(code, 103);
    assert_eq!(
        app.github.job(job).unwrap().conclusion,
        Some(Conclusion::Cancelled)
    );
}

#[tokio::test]
async fn deleting_the_registration_ends_an_idle_connected_runner() {
    let app = App::start().await;
    let (root, mut child) = connected(&app, "r-1", "").await;
    let reader = read_until(&mut child, "Listening for Jobs").await;
    let id = app.github.runners()[0].id;
    assert_eq!(
        app.delete(&format!("/orgs/acme/actions/runners/{id}"))
            .await
            .status(),
        204
    );
    let (code, out, err) = rest(reader, child).await;
    assert_eq!((code, out.as_str()), (0, REMOVED));
    assert!(err.contains("no longer exists"), "{err}");
    assert!(!root.exists(".runner"));
}

#[tokio::test]
async fn a_second_start_with_the_same_blob_meets_a_conflict() {
    let app = App::start().await;
    let (_, blob) = app.register("r-1", &["linux"]).await;
    let (first, second) = (Root::new(""), Root::new("speed = 100000.0"));
    let mut child = first.with_blob(&blob).spawn().unwrap();
    let _reader = read_until(&mut child, "Listening for Jobs").await;
    let (code, _, err) = ended(second.with_blob(&blob).spawn().unwrap()).await;
    assert_eq!(code, 5, "{err}");
}

#[tokio::test]
async fn an_acquire_that_hangs_leaves_the_job_queued_for_another() {
    let app = App::with(Options {
        pickup_timeout: Duration::from_millis(50),
        ..Options::default()
    })
    .await;
    let (_stuck_root, _stuck) = connected(&app, "stuck", "assign = 'acquire_hang'").await;
    let online = || {
        app.github
            .runners()
            .iter()
            .any(|it| it.online)
            .then_some(())
    };
    app.github
        .wait_for("the runner online", PATIENCE, online)
        .await
        .unwrap();
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["linux"]).step("true"));
    let assigned = || app.github.runners()[0].busy.then_some(());
    app.github
        .wait_for("the assignment", PATIENCE, assigned)
        .await
        .unwrap();
    let (_root, child) = connected(&app, "good", "").await;
    let job = app
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await
        .unwrap();
    assert_eq!(job.runner_name.as_deref(), Some("good"));
    assert_eq!(ended(child).await.0, 100);
}

#[tokio::test]
async fn a_crashed_worker_is_reported_by_its_listener() {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "").await;
    let mut spec = JobSpec::new("acme/app", "build", &["linux"]);
    spec.script.worker = muster_tests::standin::script::WorkerFault::Killed;
    let job = app.github.queue_job(spec);
    assert_eq!(ended(child).await.0, 102);
    assert_eq!(
        app.github.job(job).unwrap().conclusion,
        Some(Conclusion::Failure)
    );
}

#[tokio::test]
async fn sigint_while_busy_fails_the_job_at_github() {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "speed = 200.0").await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["linux"]).step("sleep 600"));
    app.github
        .wait_job(job, Status::InProgress, PATIENCE)
        .await
        .unwrap();
    signal(&child, Signal::SIGINT);
    assert_eq!(ended(child).await.0, 0);
    assert_eq!(
        app.github.job(job).unwrap().conclusion,
        Some(Conclusion::Failure)
    );
}
