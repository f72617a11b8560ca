//! The runner's process, `bin/Runner.Listener run`.
//!
//! It is started directly, since `run.sh` hides its exit code and orphans it on signals
//! (run-helper.sh.template:36-81 of actions/runner 2.336.0).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::console::LINE_MAX;
use super::descendants::INSTANCE_VARIABLE;
use super::lines::Lines;
use super::outcome::Exit;
use super::perflog::{Counter, PerfLog};

/// Between two looks at the perf files.
const PERF_INTERVAL: Duration = Duration::from_millis(250);
/// After the process's end its last lines are in the pipe already; once none came for this long, there
/// are no more. The pipe's end can't be waited for: a descendant may hold it.
const LAST_LINES_IDLE: Duration = Duration::from_millis(25);
/// The longest that the last lines are read for: a descendant may go on printing.
const LAST_LINES: Duration = Duration::from_millis(500);
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a runner is started with.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The unpacked runner.
    pub(crate) runner_dir: &'a Path,
    /// Where its perf files go.
    pub(crate) perf_dir: &'a Path,
    /// Marks its processes.
    pub(crate) instance_id: &'a str,
    /// Its configuration. It goes by the environment, since every user can read arguments.
    pub(crate) jit_config: &'a SecretString,
    /// More environment, which wins over the defaults.
    pub(crate) environment: &'a BTreeMap<String, String>,
}

/// The runner could not be started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The pipe for its output could not be made.
    #[error("make a pipe: {0}")]
    Pipe(#[source] io::Error),
    /// The directory for its perf files could not be made.
    #[error("create {path}: {source}", path = .path.display())]
    PerfDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process could not be made.
    #[error("run {path}: {source}", path = .path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What the process does.
#[derive(Debug)]
pub(crate) enum ListenerEvent {
    /// It printed a line, on either stream.
    Line(String),
    /// A counter appeared in its perf files.
    Counter(Counter),
    /// It ended. Nothing follows.
    Exited(Exit),
}

/// What can be done to it while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerCommand {
    /// SIGINT, to this process and no other: its steps must not get it.
    Interrupt,
}

/// The running process. Whoever holds it must [`run`](Listener::run) it.
#[derive(Debug)]
pub(crate) struct Listener {
    child: Child,
    output: pipe::Receiver,
    perf: PerfLog,
}

impl Listener {
    /// Starts the process, in its own process group, with nothing of this process but its signal
    /// mask cleared and its dispositions default. Needs the runtime.
    pub(crate) fn start(launch: &Launch<'_>) -> Result<Self, StartError> {
        std::fs::create_dir_all(launch.perf_dir).map_err(|source| StartError::PerfDir {
            path: launch.perf_dir.to_owned(),
            source,
        })?;
        // One pipe for both streams keeps their order.
        let (reader, writer) = io::pipe().map_err(StartError::Pipe)?;
        let second = writer.try_clone().map_err(StartError::Pipe)?;
        let output =
            pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(StartError::Pipe)?;
        let program = launch.runner_dir.join("bin/Runner.Listener");
        let mut command = Command::new(&program);
        command
            .arg("run")
            .current_dir(launch.runner_dir)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(second)
            .process_group(0)
            .env_clear()
            .envs(account())
            .envs(launch.environment)
            .env(
                "ACTIONS_RUNNER_INPUT_JITCONFIG",
                launch.jit_config.expose_secret().trim(),
            )
            .env("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "1")
            .env("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1")
            .env("RUNNER_PERFLOG", launch.perf_dir)
            .env(INSTANCE_VARIABLE, launch.instance_id);
        let child = command.spawn().map_err(|source| StartError::Spawn {
            path: program,
            source,
        })?;
        Ok(Self {
            child,
            output,
            perf: PerfLog::new(launch.perf_dir),
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let id = i32::try_from(self.child.id()?).ok()?;
        Some(Pid::from_raw(id))
    }

    /// Watches the process until it ends, and obeys.
    pub(crate) async fn run(
        mut self,
        events: mpsc::Sender<ListenerEvent>,
        mut commands: mpsc::Receiver<ListenerCommand>,
    ) {
        let mut lines = Lines::new(LINE_MAX);
        let mut buffer = vec![0; LINE_MAX];
        let mut open = true;
        let mut perf_tick = interval(PERF_INTERVAL);
        perf_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let status = loop {
            tokio::select! {
                // The console first: what it says before a counter happened before it.
                biased;
                status = self.child.wait() => break status,
                Some(command) = commands.recv() => self.obey(command),
                read = self.output.read(&mut buffer), if open => {
                    open = forward(read, &buffer, &mut lines, &events).await;
                }
                _ = perf_tick.tick() => self.forward_counters(&events).await,
            }
        };
        // What it wrote before its end counts, so it must arrive before the end does.
        let deadline = Instant::now() + LAST_LINES;
        while open && Instant::now() < deadline {
            let Ok(read) = timeout(LAST_LINES_IDLE, self.output.read(&mut buffer)).await else {
                break;
            };
            open = forward(read, &buffer, &mut lines, &events).await;
        }
        if let Some(line) = lines.finish() {
            send(&events, ListenerEvent::Line(line)).await;
        }
        self.forward_counters(&events).await;
        send(&events, ListenerEvent::Exited(exit(status))).await;
    }

    async fn forward_counters(&mut self, events: &mpsc::Sender<ListenerEvent>) {
        for counter in self.perf.poll() {
            send(events, ListenerEvent::Counter(counter)).await;
        }
    }

    fn obey(&self, command: ListenerCommand) {
        // There is no id once it has been waited for, so the signal can't reach another process.
        let Some(pid) = self.pid() else {
            return;
        };
        match command {
            ListenerCommand::Interrupt => {
                if let Err(error) = kill(pid, Signal::SIGINT) {
                    tracing::warn!(%pid, %error, "runner can't be interrupted");
                }
            }
        }
    }
}

/// Passes on what was read. False once there is nothing more to read.
async fn forward(
    read: io::Result<usize>,
    buffer: &[u8],
    lines: &mut Lines,
    events: &mpsc::Sender<ListenerEvent>,
) -> bool {
    let count = match read {
        Ok(count) => count,
        Err(error) => {
            tracing::warn!(%error, "runner's output is not readable");
            0
        }
    };
    for line in lines.push(&buffer[..count]) {
        send(events, ListenerEvent::Line(line)).await;
    }
    count > 0
}

/// If nobody listens any more, the agent is ending and what the runner says doesn't matter.
async fn send(events: &mpsc::Sender<ListenerEvent>, event: ListenerEvent) {
    if events.send(event).await.is_err() {
        tracing::debug!("an event of the runner came too late");
    }
}

fn exit(status: io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        Err(error) => {
            tracing::warn!(%error, "runner can't be waited for");
            Exit::Unknown
        }
    }
}

/// What a login of this account would set. The agent's own environment is not for the job.
fn account() -> Vec<(&'static str, String)> {
    let user = User::from_uid(Uid::current()).ok().flatten();
    let (name, home, shell) = match user {
        Some(user) => (
            user.name,
            user.dir.display().to_string(),
            user.shell.display().to_string(),
        ),
        None => ("runner".into(), "/tmp".into(), "/bin/sh".into()),
    };
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH_DEFAULT.into());
    vec![
        ("PATH", path),
        ("HOME", home),
        ("USER", name.clone()),
        ("LOGNAME", name),
        ("SHELL", shell),
        ("LANG", "C.UTF-8".into()),
    ]
}
