//! Starts the stand-in runner in a root of its own and reads what it says.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::standin::install_runner;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::PATIENCE;

pub(crate) const CONNECTED: &str = "\n√ Connected to GitHub\n\n";
pub(crate) const LISTENING: &str = "Current runner version: '2.336.0'\nTS: Listening for Jobs\n";
pub(crate) const REMOVED: &str = "√ Removed .credentials\n√ Removed .runner\n";

/// A runner's root with a scenario.
pub(crate) struct Root {
    folder: TempDir,
}

impl Root {
    pub(crate) fn new(scenario: &str) -> Self {
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

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self) -> Command {
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

    pub(crate) fn with_blob(&self, blob: &str) -> Command {
        let mut command = self.command();
        command.env("ACTIONS_RUNNER_INPUT_JITCONFIG", blob);
        command
    }

    pub(crate) fn perf(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join("perf").join(name)).unwrap_or_default();
        text.lines()
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect()
    }

    /// Kills the workers of this root; answers how many there were.
    pub(crate) fn kill_workers(&self) -> usize {
        let worker = self.file("bin/Runner.Worker");
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let own = processes.filter(|it| {
            std::fs::read_link(it.path().join("exe")).is_ok_and(|program| program == worker)
        });
        let pids = own.filter_map(|it| it.file_name().to_str()?.parse().ok());
        pids.filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok())
            .count()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// A blob without a server.
pub(crate) fn blob() -> String {
    let settings = json!({ "AgentId": "3", "AgentName": "r-1", "WorkFolder": "_work" });
    let files = json!({
        ".runner": STANDARD.encode(settings.to_string()),
        ".credentials": STANDARD.encode(r#"{"Scheme":"OAuth","Data":{"ClientId":"x"}}"#),
        ".credentials_rsaparams": STANDARD.encode("{}"),
    });
    STANDARD.encode(files.to_string())
}

/// Exit code, stdout and stderr with times replaced by `TS`.
pub(crate) type Ended = (i32, String, String);

pub(crate) async fn ended(mut child: Child) -> Ended {
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

pub(crate) fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// `yyyy-MM-dd HH:mm:ssZ` at the beginning of a line becomes `TS`.
pub(crate) fn without_times(text: &str) -> String {
    let line = |line: &str| match line.get(..20) {
        Some(time) if time.ends_with('Z') && time.as_bytes()[10] == b' ' => {
            format!("TS{}\n", &line[20..])
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

pub(crate) async fn run(scenario: &str, with: impl FnOnce(&mut Command)) -> (Root, Ended) {
    let root = Root::new(scenario);
    let mut command = root.with_blob(&blob());
    with(&mut command);
    let ended = ended(command.spawn().unwrap()).await;
    (root, ended)
}

pub(crate) fn with_result(command: &mut Command) {
    command.env("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "1");
}

pub(crate) fn lines(parts: &[&str]) -> String {
    parts.concat()
}

/// Reads stdout up to a line that contains `part`.
pub(crate) async fn read_until(
    child: &mut Child,
    part: &str,
) -> BufReader<tokio::process::ChildStdout> {
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

pub(crate) async fn rest(
    mut reader: BufReader<tokio::process::ChildStdout>,
    child: Child,
) -> Ended {
    let mut out = String::new();
    let (code, _, err) = {
        let read = async { reader.read_to_string(&mut out).await.unwrap() };
        let (_, ended) = tokio::join!(read, ended(child));
        ended
    };
    (code, without_times(&out), err)
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(
        Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()),
        signal,
    )
    .unwrap();
}

/// Waits until a file is there: a step's way to say that it runs.
pub(crate) async fn appears(file: &Path) {
    let there = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there)
        .await
        .expect("the file appears");
}
