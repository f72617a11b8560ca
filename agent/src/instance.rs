//! A launch runs once: the lock that says an agent lives, and the mark that says one has run.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// Name of the lock file in the work directory. It is locked for as long as the agent lives.
const LOCK: &str = "instance.lock";
/// Name of the mark in the work directory. Once it exists, no agent starts there again.
const STARTED: &str = "started";

/// Tries to take the lock while its holder has left no mark, and the time between two.
const TRIES: u32 = 100;
const RETRY: Duration = Duration::from_millis(20);

/// What the claim to a work directory came to.
#[derive(Debug)]
pub(crate) enum Claim {
    /// This process is the one. Keep the lock for the life of the process; it isn't inherited.
    Ours(Flock<File>),
    /// Another process holds the lock.
    AlreadyRunning,
    /// An agent has run here before.
    RanBefore,
}

/// The work directory can't be used.
#[derive(Debug, Error)]
#[error("claim {path}: {source}", path = path.display())]
pub(crate) struct ClaimError {
    path: PathBuf,
    source: io::Error,
}

/// Claims `work_dir` for this process.
///
/// A join token and a runner configuration work once, so a second start could do nothing but harm.
pub(crate) fn claim(work_dir: &Path) -> Result<Claim, ClaimError> {
    let failed = |name: &str, source| ClaimError {
        path: work_dir.join(name),
        source,
    };
    let file = open_lock(work_dir).map_err(|e| failed(LOCK, e))?;
    let Some(lock) = lock(file, work_dir).map_err(|errno| failed(LOCK, errno.into()))? else {
        return Ok(Claim::AlreadyRunning);
    };
    let mark = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(work_dir.join(STARTED));
    match mark {
        Ok(_) => Ok(Claim::Ours(lock)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(Claim::RanBefore),
        Err(e) => Err(failed(STARTED, e)),
    }
}

/// Holds `work_dir` for this process. It is an error if another one has it.
pub(crate) fn hold(work_dir: &Path) -> Result<Flock<File>, ClaimError> {
    let failed = |source| ClaimError {
        path: work_dir.join(LOCK),
        source,
    };
    let file = open_lock(work_dir).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| failed(errno.into()))
}

/// The standard library opens files close-on-exec, so the runner doesn't inherit the lock.
fn open_lock(work_dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(work_dir.join(LOCK))
}

/// Takes the lock; none if another agent holds it. One that looks whether an agent lives holds it for
/// a moment too, so that as long as nobody has left the mark it is tried again.
fn lock(mut file: File, work_dir: &Path) -> Result<Option<Flock<File>>, Errno> {
    for _ in 0..TRIES {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) if work_dir.join(STARTED).exists() => return Ok(None),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(errno),
        };
        std::thread::park_timeout(RETRY);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{Claim, claim};

    #[test]
    fn only_the_first_claim_of_a_directory_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path()).unwrap();
        assert!(matches!(first, Claim::Ours(_)), "{first:?}");
        assert!(matches!(claim(dir.path()).unwrap(), Claim::AlreadyRunning));
        drop(first);
        assert!(matches!(claim(dir.path()).unwrap(), Claim::RanBefore));
        assert!(matches!(claim(dir.path()).unwrap(), Claim::RanBefore));
    }

    #[test]
    fn one_who_only_looks_does_not_keep_an_agent_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join(super::LOCK)).unwrap();
        let looker = super::Flock::lock(file, super::FlockArg::LockShared).unwrap();
        let path = dir.path().to_owned();
        let claimed = std::thread::spawn(move || claim(&path).unwrap());
        drop(looker);
        assert!(matches!(claimed.join().unwrap(), Claim::Ours(_)));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = claim(std::path::Path::new("/nonexistent/work")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/work"), "{error}");
    }
}
