//! What signals, cancellation and hooks do to the stand-in runner and its job.

use std::process::Stdio;
use std::time::Duration;

use muster_tests::scripted::until;
use nix::sys::signal::Signal;
use rstest::rstest;
use tokio::process::Command;

use crate::runner::{Root, appears, blob, ended, read_until, rest, run, signal, with_result};
use crate::support::PATIENCE;

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
    let scenario = long_job(&root, "cancel_after_ms = 200000");
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

/// A worker that hears nothing, found by its own log.
const DEAF: &str = "idle = { assign = 5 }\n[job.script]\nworker = 'hang'\n";

async fn busy_with_deaf_worker(root: &Root) -> tokio::process::Child {
    let child = root.with_blob(&blob()).spawn().unwrap();
    let set_up = || {
        root.perf("Worker.perf")
            .contains(&"WorkerJobInitialized_1".to_owned())
    };
    let reached = async {
        while !set_up() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("set-up ends");
    child
}

#[tokio::test]
async fn sigterm_leaves_a_deaf_worker_behind_with_143() {
    let root = Root::new(DEAF);
    let mut child = busy_with_deaf_worker(&root).await;
    signal(&child, Signal::SIGTERM);
    let status = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(143));
    assert_eq!(root.kill_workers(), 1, "the worker goes on");
}

#[tokio::test]
async fn sigint_waits_for_a_deaf_worker_without_limit() {
    let root = Root::new(&format!("speed = 1000000.0\n{DEAF}"));
    let mut child = busy_with_deaf_worker(&root).await;
    let reader = read_until(&mut child, "Running job").await;
    signal(&child, Signal::SIGINT);
    // Half a second here is days of the runner's time.
    let waited = tokio::time::timeout(Duration::from_millis(500), child.wait()).await;
    assert!(waited.is_err(), "it waits");
    assert_eq!(root.kill_workers(), 1);
    let (code, out, _) = rest(reader, child).await;
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "Exiting...\nTS: Job build completed with result: Canceled\n"
        )
    );
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
    let mut command = root.with_blob(&blob());
    with_result(&mut command);
    let (code, ..) = ended(command.spawn().unwrap()).await;
    assert_eq!(code, 100);
    let pid = std::fs::read_to_string(root.file("pid")).unwrap();
    // Killed, it dies once it gets a processor.
    until("the sweep", || {
        let stat = format!("/proc/{}/stat", pid.trim());
        let state = std::fs::read_to_string(stat).unwrap_or_default();
        state.is_empty() || state.contains(" Z ")
    })
    .await;
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
