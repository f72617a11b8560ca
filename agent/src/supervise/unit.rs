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
    /// The launcher came and was lost.
    #[error("hand over to the launcher: {0}")]
    Launcher(#[source] io::Error),
    /// The record of an earlier run.
    #[error("clear the record of an earlier run: {0}")]
    Record(#[source] io::Error),
}

/// The main process of the unit.
#[derive(Debug)]
pub(crate) struct UnitProcess {
    pid: Option<Pid>,
    /// None if it had ended before it was looked for.
    handle: Option<AsyncFd<OwnedFd>>,
    work_dir: PathBuf,
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
    let (pid, handle) = timeout(LAUNCH_TIMEOUT, hand_over(unit, &listener, errand))
        .await
        .map_err(|_| UnitError::NoLauncher(unit.name.clone()))??;
    Ok(Started {
        cgroup: group_of(unit, pid),
        process: UnitProcess {
            pid: Some(pid),
            handle: Some(handle),
            work_dir: work_dir.to_owned(),
        },
        console,
    })
}

/// Finds a unit that an earlier supervisor has started.
pub(crate) async fn find(unit: &UnitSettings, work_dir: &Path) -> Result<Started, UnitError> {
    let console = console(unit, work_dir)?;
    let words = ["show", "--property=MainPID", "--value", &unit.name];
    let answer = systemctl(&words).await?;
    let pid = answer
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw);
    // systemd has yet to collect a main process that it names, so the id is not another's.
    let handle = pid.and_then(|pid| open(pid).ok());
    Ok(Started {
        cgroup: pid.and_then(|pid| group_of(unit, pid)),
        process: UnitProcess {
            pid,
            handle,
            work_dir: work_dir.to_owned(),
        },
        console,
    })
}

/// Waits for the launcher and gives it the errand. Until it has that, it is not the runner yet, and no
/// process of a job exists.
async fn hand_over(
    unit: &UnitSettings,
    listener: &UnixListener,
    errand: &Errand,
) -> Result<(Pid, AsyncFd<OwnedFd>), UnitError> {
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
        let text = launch::write(errand).map_err(UnitError::Launcher)?;
        stream.write_all(&text).await.map_err(UnitError::Launcher)?;
        stream.shutdown().await.map_err(UnitError::Launcher)?;
        return Ok((pid, handle));
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
        .inspect_err(|error| tracing::warn!(%pid, %error, "the runner's cgroup is not known"))
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

    /// Waits for its end, and for systemd's word on how it ended.
    pub(crate) async fn wait(&self) -> Exit {
        if let Some(handle) = &self.handle
            && let Err(error) = handle.readable().await
        {
            tracing::warn!(%error, "runner can't be waited for");
        }
        let deadline = Instant::now() + RECORD_TIMEOUT;
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
