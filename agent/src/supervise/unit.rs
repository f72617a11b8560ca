//! The runner in a unit of systemd, as a user of its own: started, found again, told to stop, waited for.
//!
//! systemd is its parent, so it outlives the supervisor. The unit runs `muster-agent launch-runner`
//! ([`super::launch`]), which gets the environment over a socket and then becomes the runner.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::cgroup::Cgroup;
use super::launch::{self, Errand};
use super::outcome::Exit;
use super::{exit_record, files};
use crate::config::UnitSettings;
use crate::local::socket::{self, ListenError};
use crate::systemd::{SystemctlError, systemctl};

/// Longest time from the call of `systemctl start` to the launcher at the socket. With that call, well below the
/// supervisor's watchdog.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from the end of the process to systemd's record of it.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks for it.
const RECORD_INTERVAL: Duration = Duration::from_millis(20);
/// Name of the console's FIFO in the supervisor's directory.
const CONSOLE: &str = "console";
/// Name of the launcher's socket there.
pub(crate) const LAUNCH_SOCKET: &str = "launch.sock";

/// The unit can't be started, or not be found again.
#[derive(Debug, Error)]
pub(crate) enum UnitError {
    /// The console.
    #[error("make the console {path}: {source}", path = .path.display())]
    Console {
        /// The FIFO.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket of the launcher.
    #[error("{0}")]
    Socket(#[from] ListenError),
    /// systemd.
    #[error("{0}")]
    Systemd(#[from] SystemctlError),
    /// The launcher didn't come.
    #[error("start {0}: its launcher did not come within {LAUNCH_TIMEOUT:?}")]
    NoLauncher(String),
    /// The unit ended before that, as without its guard.
    #[error("start {0}: it ended before its launcher came; its log says why")]
    Ended(String),
    /// The launcher came and was lost.
    #[error("hand over to the launcher: {0}")]
    Launcher(#[source] io::Error),
    /// The record of the unit's end, or of an earlier run.
    #[error("read or clear the record of the unit's end: {0}")]
    Record(#[source] io::Error),
}

/// The main process of the unit.
#[derive(Debug)]
pub(crate) struct UnitProcess {
    pid: Option<Pid>,
    /// None if it had ended before it was looked for.
    handle: Option<AsyncFd<OwnedFd>>,
    work_dir: PathBuf,
    /// When systemd's word on its end is no longer waited for. Set once it has ended.
    record_due: Option<Instant>,
}

/// A unit that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its main process.
    pub(crate) process: UnitProcess,
    /// What it prints.
    pub(crate) console: pipe::Receiver,
    /// Where its processes are. None if that could not be told.
    pub(crate) cgroup: Option<Cgroup>,
}

/// What a look for a unit shows that an earlier supervisor has started, or was about to.
#[derive(Debug)]
pub(crate) enum Found {
    /// It runs, or it has ended and there is a word on how.
    Unit(Started),
    /// systemd is about to start it, or to end it.
    Changing,
    /// It doesn't run, and left no word: it never did, or how it ended can't be known any more.
    Nothing,
}

/// Starts the unit and hands `errand` to its launcher.
pub(crate) async fn start(
    unit: &UnitSettings,
    work_dir: &Path,
    errand: &Errand,
) -> Result<Started, UnitError> {
    exit_record::remove(work_dir).map_err(UnitError::Record)?;
    let console = console(unit, work_dir)?;
    let listener = socket::listen(&work_dir.join(LAUNCH_SOCKET), unit.user.gid)?;
    systemctl(&["start", "--no-block", &unit.name]).await?;
    let launched = timeout(LAUNCH_TIMEOUT, async {
        tokio::select! {
            handed = hand_over(unit, &listener, errand) => handed,
            () = recorded(work_dir) => Err(UnitError::Ended(unit.name.clone())),
        }
    });
    let (pid, handle, cgroup) = launched
        .await
        .map_err(|_| UnitError::NoLauncher(unit.name.clone()))??;
    Ok(Started {
        cgroup: Some(cgroup),
        process: UnitProcess {
            pid: Some(pid),
            handle: Some(handle),
            work_dir: work_dir.to_owned(),
            record_due: None,
        },
        console,
    })
}

/// Waits for a record of the unit's end.
async fn recorded(work_dir: &Path) {
    while !matches!(exit_record::read(work_dir), Ok(Some(_))) {
        sleep(RECORD_INTERVAL).await;
    }
}

/// Looks for a unit that an earlier supervisor has started. An error says nothing of the unit.
pub(crate) async fn find(unit: &UnitSettings, work_dir: &Path) -> Result<Found, UnitError> {
    let found = |pid, handle, cgroup| {
        Ok(Found::Unit(Started {
            cgroup,
            process: UnitProcess {
                pid,
                handle,
                work_dir: work_dir.to_owned(),
                record_due: None,
            },
            console: console(unit, work_dir)?,
        }))
    };
    let record = || exit_record::read(work_dir).map_err(UnitError::Record);
    // Who has ended need not be asked for.
    if record()?.is_some() {
        return found(None, None, None);
    }
    let words = [
        "show",
        "--property=MainPID",
        "--property=ActiveState",
        "--property=Job",
        &unit.name,
    ];
    let state = UnitState::parse(&systemctl(&words).await?);
    if let Some(pid) = state.main_pid {
        // systemd has yet to collect a main process that it names, so the id is not another's.
        let handle = match open(pid) {
            Ok(handle) => Some(handle),
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => None,
            Err(error) => return Err(UnitError::Launcher(error)),
        };
        return found(Some(pid), handle, group_of(unit, pid));
    }
    if !state.at_rest {
        return Ok(Found::Changing);
    }
    // It was written before the unit came to rest.
    match record()? {
        Some(_) => found(None, None, None),
        None => Ok(Found::Nothing),
    }
}

/// What systemd says of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnitState {
    main_pid: Option<Pid>,
    /// It doesn't run, and nothing is to be done about it.
    at_rest: bool,
}

impl UnitState {
    /// Reads lines of `<property>=<value>`. What they don't say is not so.
    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let values = text.lines().filter_map(|line| line.split_once('='));
            let mut named = values.filter(|(key, _)| *key == name);
            named.next().map(|(_, value)| value.trim())
        };
        let number = value("MainPID").and_then(|pid| pid.parse().ok());
        Self {
            main_pid: number.filter(|pid| *pid > 0).map(Pid::from_raw),
            // Without a job there is no such line, or it is empty.
            at_rest: matches!(value("ActiveState"), Some("inactive" | "failed"))
                && value("Job").unwrap_or_default().is_empty(),
        }
    }
}

/// Waits for the launcher and gives it the errand. Until it has that, it is not the runner yet, and no
/// process of a job exists.
async fn hand_over(
    unit: &UnitSettings,
    listener: &UnixListener,
    errand: &Errand,
) -> Result<(Pid, AsyncFd<OwnedFd>, Cgroup), UnitError> {
    loop {
        let (mut stream, _) = listener.accept().await.map_err(UnitError::Launcher)?;
        if !socket::peer_is(&stream, &[unit.user.uid.as_raw()]) {
            continue;
        }
        let peer = stream.peer_cred().map_err(UnitError::Launcher)?;
        let pid = peer
            .pid()
            .map(Pid::from_raw)
            .ok_or_else(|| UnitError::Launcher(io::Error::other("a peer without a pid")))?;
        // While it waits for us, its id is its own.
        let handle = open(pid).map_err(UnitError::Launcher)?;
        // Other processes of the user are not the launcher, which alone is in the unit by now.
        let Some(cgroup) = group_of(unit, pid) else {
            continue;
        };
        let text = launch::write(errand).map_err(UnitError::Launcher)?;
        stream.write_all(&text).await.map_err(UnitError::Launcher)?;
        stream.shutdown().await.map_err(UnitError::Launcher)?;
        return Ok((pid, handle, cgroup));
    }
}

fn open(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let handle = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    #[expect(
        deprecated,
        reason = "unsound for types whose descriptor changes; an OwnedFd keeps its own, and the new form is unsafe"
    )]
    AsyncFd::new(handle)
}

fn group_of(unit: &UnitSettings, pid: Pid) -> Option<Cgroup> {
    Cgroup::of_unit(&unit.name, pid)
        .inspect_err(|error| tracing::warn!(%pid, %error, "not a process in the runner's cgroup"))
        .ok()
}

/// The console: a FIFO that both ends open for reading and writing, so that neither notices when the
/// supervisor dies. What was printed waits in it.
fn console(unit: &UnitSettings, work_dir: &Path) -> Result<pipe::Receiver, UnitError> {
    let path = console_path(work_dir);
    let failed = |source: io::Error| UnitError::Console {
        path: path.clone(),
        source,
    };
    match mkfifo(&path, Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    files::give_to_group(&path, unit.user.gid, 0o660).map_err(failed)?;
    pipe::OpenOptions::new()
        .read_write(true)
        .open_receiver(&path)
        .map_err(failed)
}

/// The console's FIFO in the supervisor's directory.
pub(crate) fn console_path(work_dir: &Path) -> PathBuf {
    work_dir.join(CONSOLE)
}

impl UnitProcess {
    /// Its id, as far as it was seen alive.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// SIGINT, to this process and no other.
    pub(crate) fn interrupt(&self) -> io::Result<()> {
        match &self.handle {
            Some(handle) => Ok(pidfd_send_signal(handle, Signal::INT)?),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether it ended because the host is being shut down. Known once it has been waited for.
    pub(crate) fn ended_with_host(&self) -> bool {
        exit_record::shuts_down(&self.work_dir)
    }

    /// Waits for its end, and for systemd's word on how it ended. May be cancelled and called again.
    pub(crate) async fn wait(&mut self) -> Exit {
        if let Some(handle) = &self.handle
            && let Err(error) = handle.readable().await
        {
            tracing::warn!(%error, "runner can't be waited for");
        }
        // Counted from the first call that came so far.
        let deadline = *self
            .record_due
            .get_or_insert_with(|| Instant::now() + RECORD_TIMEOUT);
        loop {
            match exit_record::read(&self.work_dir) {
                Ok(Some(exit)) => return exit,
                Ok(None) if Instant::now() < deadline => sleep(RECORD_INTERVAL).await,
                Ok(None) => {
                    tracing::warn!("the unit left no record of its end");
                    return Exit::Unknown;
                }
                Err(error) => {
                    tracing::warn!(%error, "the record of the unit's end can't be read");
                    return Exit::Unknown;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use nix::unistd::Pid;
    use rstest::rstest;
    use tokio::time::advance;

    use super::{Exit, RECORD_TIMEOUT, UnitProcess, UnitState};

    #[rstest]
    #[case::runs("MainPID=7\nActiveState=active\n", Some(7), false)]
    #[case::never_ran("MainPID=0\nActiveState=inactive\n", None, true)]
    #[case::failed("ActiveState=failed\nMainPID=0\nJob=\n", None, true)]
    #[case::is_about_to_run("Job=12\nMainPID=0\nActiveState=inactive\n", None, false)]
    #[case::is_being_prepared("MainPID=0\nActiveState=activating\n", None, false)]
    #[case::is_being_cleared_away("MainPID=0\nActiveState=deactivating\n", None, false)]
    #[case::odd("MainPID=x\nnonsense\n", None, false)]
    fn what_systemd_says(#[case] text: &str, #[case] pid: Option<i32>, #[case] at_rest: bool) {
        let main_pid = pid.map(Pid::from_raw);
        assert_eq!(UnitState::parse(text), UnitState { main_pid, at_rest });
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_never_comes_is_not_waited_for_longer_by_who_asks_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = UnitProcess {
            pid: None,
            handle: None,
            work_dir: dir.path().to_owned(),
            record_due: None,
        };
        let turn = Duration::from_millis(250);
        let mut waited = Duration::ZERO;
        let exit = loop {
            let mut context = Context::from_waker(Waker::noop());
            let polled = pin!(process.wait()).poll(&mut context);
            if let std::task::Poll::Ready(exit) = polled {
                break exit;
            }
            assert!(waited <= RECORD_TIMEOUT, "still waiting");
            advance(turn).await;
            waited += turn;
        };
        assert_eq!(exit, Exit::Unknown);
        assert!(waited >= RECORD_TIMEOUT, "{waited:?}");
    }
}
