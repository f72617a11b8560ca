//! The folder of an instance: what is left of it for a coordinator that starts anew.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{InstanceId, LaunchId, Origin, PoolName};
use nix::fcntl::{Flock, FlockArg};

use crate::identity::files;

/// Name of the file that holds the launch.
const LAUNCH: &str = "launch";
/// Name of the file that holds the pool.
const POOL: &str = "pool";
/// Locked by the agent while it lives.
const LOCK: &str = "instance.lock";
/// Made by the agent at its start, once for ever.
const STARTED: &str = "started";
/// Made when everything of the instance was ended and removed but its log.
const CLEARED: &str = "cleared";
/// The copy of the runner.
const RUNNER: &str = "runner";

/// The folder of one instance.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// What the folder tells of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// No agent has started.
    NotStarted,
    /// It lives.
    Alive,
    /// It has ended.
    Ended,
    /// It has ended, and all is cleared away.
    Cleared,
}

impl Folder {
    pub(super) fn of(instances: &Path, instance: &InstanceId) -> Self {
        Self {
            path: instances.join(instance.as_str()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn runner(&self) -> PathBuf {
        self.path.join(RUNNER)
    }

    /// Makes the folder with a copy of the runner. A half-made one is completed.
    pub(super) fn prepare(
        &self,
        launch: &LaunchId,
        pool: &PoolName,
        runner_dir: &Path,
    ) -> io::Result<()> {
        let listener = runner_dir.join("bin/Runner.Listener");
        if !listener.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "it has no bin/Runner.Listener; unpack the official runner there",
            ));
        }
        fs::create_dir_all(&self.path)?;
        // Whoever lists instances meanwhile must not find one without its launch: it would count as one that the ledger
        // has lost. So the launch comes first, and each file is there whole or not at all, also where it was before.
        let write = |name, text: &str| {
            files::write_atomically(&self.path.join(name), text.as_bytes(), files::PUBLIC)
        };
        write(LAUNCH, launch.as_str())?;
        write(POOL, pool.as_str())?;
        // A copy, never links: a job could write through a link into the next job's runner.
        copy_tree(runner_dir, &self.runner())
    }

    pub(super) fn launch(&self) -> Option<LaunchId> {
        let text = fs::read_to_string(self.path.join(LAUNCH)).ok()?;
        (!text.is_empty()).then(|| LaunchId::new(text))
    }

    /// What a ledger that has lost it needs to know.
    pub(super) fn origin(&self) -> Option<Origin> {
        let file = self.path.join(POOL);
        let pool = fs::read_to_string(&file).ok()?;
        let since = fs::metadata(&file).and_then(|data| data.modified()).ok()?;
        Some(Origin {
            pool: PoolName::new(pool),
            since: Timestamp::try_from(since).ok()?,
            offering: None,
        })
    }

    /// The agent's log, to append to.
    pub(super) fn log(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.join("agent.log"))
    }

    pub(super) fn liveness(&self) -> Liveness {
        if self.path.join(CLEARED).exists() {
            return Liveness::Cleared;
        }
        if self.is_locked() {
            return Liveness::Alive;
        }
        if self.path.join(STARTED).exists() {
            Liveness::Ended
        } else {
            Liveness::NotStarted
        }
    }

    fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.path.join(LOCK)) else {
            return false;
        };
        // Taken for a moment only; an agent that meets it tries again.
        matches!(
            Flock::lock(file, FlockArg::LockSharedNonblock),
            Err((_, nix::errno::Errno::EWOULDBLOCK))
        )
    }

    /// Removes the folder with all that is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }

    /// Removes what is not for reading afterwards, and marks the folder, so that a repeated launch
    /// doesn't start anew.
    pub(super) fn clear(&self) -> io::Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        File::create(self.path.join(CLEARED))?;
        for name in [RUNNER, "perf"] {
            match fs::remove_dir_all(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// How long ago the folder of an instance was last touched; zero if nobody knows.
pub(super) fn age(instances: &Path, instance: &InstanceId) -> Duration {
    fs::metadata(instances.join(instance.as_str()))
        .and_then(|data| data.modified())
        .ok()
        .and_then(|at| at.elapsed().ok())
        .unwrap_or_default()
}

/// All instances that have a folder.
pub(super) fn all(instances: &Path) -> io::Result<Vec<(InstanceId, Option<LaunchId>, Liveness)>> {
    let entries = match fs::read_dir(instances) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("i-")) else {
            continue;
        };
        let instance = InstanceId::new(name);
        let folder = Folder::of(instances, &instance);
        all.push((instance, folder.launch(), folder.liveness()));
    }
    Ok(all)
}

/// Copies a folder; links inside it stay links. `fs::copy` shares blocks where the file system can.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            match std::os::unix::fs::symlink(fs::read_link(&source)?, &target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let runner = dir.path().join("runner-template");
        fs::create_dir_all(runner.join("bin")).unwrap();
        fs::write(runner.join("bin/Runner.Listener"), "#!").unwrap();
        let folder = Folder::of(&dir.path().join("instances"), &"i-0123456789abcdef0".into());
        (dir, folder, runner)
    }

    #[test]
    fn an_instance_that_tells_its_pool_tells_its_launch() {
        let (_dir, folder, runner) = folder();
        let prepared = folder.clone();
        let making = std::thread::spawn(move || {
            for _ in 0..100 {
                prepared
                    .prepare(&"launch".into(), &"linux".into(), &runner)
                    .unwrap();
            }
        });
        let mut looked = false;
        while !making.is_finished() || !looked {
            looked = folder.origin().is_some();
            assert!(!looked || folder.launch() == Some("launch".into()));
        }
        making.join().unwrap();
    }

    #[test]
    fn a_folder_tells_each_stage_of_its_agent() {
        let (_dir, folder, runner) = folder();
        assert_eq!(folder.liveness(), Liveness::NotStarted);
        folder
            .prepare(&"launch".into(), &"linux".into(), &runner)
            .unwrap();
        folder
            .prepare(&"launch".into(), &"linux".into(), &runner)
            .unwrap();
        assert_eq!(folder.liveness(), Liveness::NotStarted);
        assert_eq!(folder.launch(), Some("launch".into()));
        let lock = File::create(folder.path().join(LOCK)).unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
        fs::write(folder.path().join(STARTED), "").unwrap();
        assert_eq!(folder.liveness(), Liveness::Alive);
        drop(lock);
        assert_eq!(folder.liveness(), Liveness::Ended);
        folder.clear().unwrap();
        folder.clear().unwrap();
        assert_eq!(folder.liveness(), Liveness::Cleared);
        assert!(!folder.runner().exists());
    }

    #[test]
    fn a_job_can_not_write_into_the_next_jobs_runner() {
        let (_dir, folder, runner) = folder();
        folder
            .prepare(&"launch".into(), &"linux".into(), &runner)
            .unwrap();
        fs::write(folder.runner().join("bin/Runner.Listener"), "evil").unwrap();
        assert_eq!(
            fs::read_to_string(runner.join("bin/Runner.Listener")).unwrap(),
            "#!"
        );
    }

    #[test]
    fn a_folder_without_a_runner_is_refused_with_what_to_do() {
        let (dir, folder, _) = folder();
        let error = folder
            .prepare(&"launch".into(), &"linux".into(), &dir.path().join("empty"))
            .unwrap_err();
        assert!(error.to_string().contains("unpack the official runner"));
    }
}
