//! Where the processes of the runner are found: by descent and by mark, or in a cgroup of their own.

use std::path::Path;
use std::time::Duration;

use nix::unistd::Pid;

use super::cgroup::Cgroup;
use super::descendants;

/// All there is of a runner.
#[derive(Clone, Debug)]
pub(crate) enum Grounds {
    /// Descendants of this process, and processes with this mark in their environment.
    Descendants {
        /// The value of `MUSTER_INSTANCE_ID`.
        mark: String,
    },
    /// A cgroup that holds the runner and nothing else. Not known before the runner has one.
    Cgroup(Option<Cgroup>),
}

impl Grounds {
    /// The runner's own cgroup, once it has one.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        match self {
            Self::Descendants { .. } => None,
            Self::Cgroup(cgroup) => cgroup.as_ref(),
        }
    }

    /// A fresh look: whether a worker process exists.
    pub(crate) fn worker_exists(&self) -> bool {
        match self {
            Self::Descendants { .. } => descendants::worker_exists(),
            Self::Cgroup(cgroup) => cgroup.as_ref().is_some_and(Cgroup::worker_exists),
        }
    }

    /// Kills all there is, until nothing is left or `limit` is over. Returns how many are left.
    ///
    /// `runner` is killed too, but not reaped: the runtime waits for it and wants its exit status. That of a
    /// unit's main process comes by a record in `records`.
    pub(crate) async fn kill_all(
        &self,
        runner: Option<Pid>,
        records: &Path,
        limit: Duration,
    ) -> usize {
        match self {
            Self::Descendants { mark } => descendants::kill_all(mark, runner, limit).await,
            Self::Cgroup(None) => 0,
            Self::Cgroup(Some(cgroup)) => cgroup.kill_all(records, limit).await,
        }
    }
}
