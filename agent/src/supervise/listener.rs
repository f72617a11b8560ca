//! The runner's process, `bin/Runner.Listener run`.
//!
//! It is started directly, since `run.sh` hides its exit code and orphans it on signals
//! (run-helper.sh.template:36-81 of actions/runner 2.336.0).

mod start;

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use self::start::perf_dir;
pub(crate) use self::start::{Launch, StartError, job_dir};
use super::cgroup::Cgroup;
use super::console::LINE_MAX;
use super::files;
use super::lines::Lines;
use super::outcome::Exit;
use super::perflog::{Counter, PerfLog};
use super::unit::{self, Found, UnitProcess};
use crate::backoff::Backoff;
use crate::config::{Mode, UnitSettings};

/// Between two looks at the perf files.
const PERF_INTERVAL: Duration = Duration::from_millis(250);
/// After the process's end its last lines are in the pipe already; once none came for this long, there
/// are no more. The pipe's end can't be waited for: a descendant may hold it.
const LAST_LINES_IDLE: Duration = Duration::from_millis(25);
/// The longest that the last lines are read for: a descendant may go on printing.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Reads of the console before each look at the perf files: as much as a pipe holds.
const READS_BEFORE_COUNTERS: usize = 8;
/// First ceiling of the wait before an earlier supervisor's runner is looked for again.
const FIND_BASE: Duration = Duration::from_millis(100);
/// Last ceiling.
const FIND_CAP: Duration = Duration::from_secs(5);

/// What the process does.
#[derive(Debug)]
pub(crate) enum ListenerEvent {
    /// A runner that an earlier supervisor has started was found again, alive or not.
    Found {
        /// Its process id, if it was seen alive.
        pid: Option<Pid>,
        /// Where its processes are, if that could be told.
        cgroup: Option<Cgroup>,
    },
    /// No runner is there, though one was to be started, and nobody knows what became of it. Nothing
    /// follows.
    Missing,
    /// It printed a line, on either stream.
    Line(String),
    /// A counter appeared in its perf files.
    Counter(Counter),
    /// The host is being shut down, by somebody who didn't ask us, and the runner with it. Its end follows.
    HostShutsDown,
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
    process: Process,
    output: pipe::Receiver,
    perf: PerfLog,
    cgroup: Option<Cgroup>,
}

#[derive(Debug)]
enum Process {
    Child(Child),
    Unit(UnitProcess),
}

impl Listener {
    /// Starts the process with nothing of this process in it but a signal mask cleared and default
    /// dispositions: as a child in its own process group, or in its unit.
    pub(crate) async fn start(launch: &Launch<'_>) -> Result<Self, StartError> {
        let job_dir = job_dir(launch.work_dir);
        let perf_dir = perf_dir(launch.work_dir);
        let failed = |source| StartError::JobDir {
            path: perf_dir.clone(),
            source,
        };
        if let Mode::Unit(unit) = launch.mode {
            for dir in [&job_dir, &perf_dir] {
                files::give_directory(dir, &unit.user).map_err(failed)?;
            }
            let started = unit::start(unit, launch.work_dir, &launch.errand()).await?;
            return Ok(Self::of_unit(started, launch.work_dir));
        }
        std::fs::create_dir_all(&perf_dir).map_err(failed)?;
        let (process, output) = launch.spawn()?;
        Ok(Self {
            process: Process::Child(process),
            output,
            perf: PerfLog::new(&perf_dir),
            cgroup: None,
        })
    }

    /// Finds the process again that an earlier supervisor has started in its unit, and watches it. Asks
    /// until there is an answer: that nobody can say how it is does not mean that it has ended.
    pub(crate) async fn find_and_run(
        unit: UnitSettings,
        work_dir: PathBuf,
        events: mpsc::Sender<ListenerEvent>,
        commands: mpsc::Receiver<ListenerCommand>,
    ) {
        let mut backoff = Backoff::new(FIND_BASE, FIND_CAP);
        while !events.is_closed() {
            match unit::find(&unit, &work_dir).await {
                Ok(Found::Unit(found)) => {
                    let listener = Self::of_unit(found, &work_dir);
                    let (pid, cgroup) = (listener.pid(), listener.cgroup.clone());
                    send(&events, ListenerEvent::Found { pid, cgroup }).await;
                    return listener.run(events, commands).await;
                }
                Ok(Found::Nothing) => return send(&events, ListenerEvent::Missing).await,
                Ok(Found::Changing) => {}
                Err(error) => {
                    tracing::warn!(%error, "the runner's unit can't be looked for; trying again");
                }
            }
            sleep(backoff.next()).await;
        }
    }

    fn of_unit(unit: unit::Started, work_dir: &Path) -> Self {
        Self {
            process: Process::Unit(unit.process),
            output: unit.console,
            perf: PerfLog::new(&perf_dir(work_dir)),
            cgroup: unit.cgroup,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<Pid> {
        match &self.process {
            Process::Child(child) => Some(Pid::from_raw(i32::try_from(child.id()?).ok()?)),
            Process::Unit(process) => process.pid(),
        }
    }

    /// The cgroup that holds it and nothing else.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
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
        let exit = loop {
            tokio::select! {
                biased;
                exit = self.process.wait() => break exit,
                Some(command) = commands.recv() => self.obey(command),
                _ = perf_tick.tick() => {
                    // What the console says before a counter happened before it. Who floods it does
                    // not keep the counters back.
                    for _ in 0..READS_BEFORE_COUNTERS {
                        match self.output.try_read(&mut buffer) {
                            Ok(count) if count > 0 => {
                                forward(Ok(count), &buffer, &mut lines, &events).await;
                            }
                            // The read below hears of it too.
                            _ => break,
                        }
                    }
                    self.forward_counters(&events).await;
                }
                read = self.output.read(&mut buffer), if open => {
                    open = forward(read, &buffer, &mut lines, &events).await;
                }
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
        if self.process.ended_with_host() {
            send(&events, ListenerEvent::HostShutsDown).await;
        }
        send(&events, ListenerEvent::Exited(exit)).await;
    }

    async fn forward_counters(&mut self, events: &mpsc::Sender<ListenerEvent>) {
        for counter in self.perf.poll() {
            send(events, ListenerEvent::Counter(counter)).await;
        }
    }

    fn obey(&self, command: ListenerCommand) {
        match command {
            ListenerCommand::Interrupt => {
                if let Err(error) = self.process.interrupt() {
                    tracing::warn!(%error, "runner can't be interrupted");
                }
            }
        }
    }
}

impl Process {
    /// Waits for its end. May be cancelled and called again.
    async fn wait(&mut self) -> Exit {
        match self {
            Self::Child(child) => exit(child.wait().await),
            Self::Unit(process) => process.wait().await,
        }
    }

    fn ended_with_host(&self) -> bool {
        match self {
            Self::Child(_) => false,
            Self::Unit(process) => process.ended_with_host(),
        }
    }

    fn interrupt(&self) -> io::Result<()> {
        match self {
            // There is no id once it has been waited for, so the signal can't reach another process.
            Self::Child(child) => match child.id().and_then(|id| i32::try_from(id).ok()) {
                Some(id) => Ok(kill(Pid::from_raw(id), Signal::SIGINT)?),
                None => Ok(()),
            },
            Self::Unit(process) => process.interrupt(),
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
