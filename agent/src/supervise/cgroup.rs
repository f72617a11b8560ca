//! The cgroup of the runner's unit: who is in it, and the end of them all.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>. Where systemd still has a hierarchy of version 1,
//! the processes are found in that, and killed one by one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::descendants::{WORKER, is_live_process};

/// Where cgroups are mounted: version 2 alone, beside version 1, version 1 with systemd's hierarchy.
const MOUNTS: [&str; 3] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
];
/// Between two rounds of killing.
const ROUND: Duration = Duration::from_millis(20);
/// How deep nested groups are looked for: a job may make some (containers), and deeper is a trap.
const DEPTH_MAX: usize = 16;

/// One group, with those below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// The group of the unit `name`, to which the process `pid` belongs. It is never a larger one: everything
    /// in it will be killed.
    pub(crate) fn of_unit(name: &str, pid: Pid) -> io::Result<Self> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        unit_paths(&table, name)
            .flat_map(|path| MOUNTS.map(|mount| Path::new(mount).join(path)))
            .find(|dir| holds(dir, pid))
            .map(Self)
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The directory of it.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether a worker process is in it.
    pub(crate) fn worker_exists(&self) -> bool {
        self.processes().into_iter().any(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == WORKER && is_live_process(pid)
        })
    }

    /// Kills all in it, until it is empty or `limit` is over. Returns how many are left.
    pub(crate) async fn kill_all(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.kill_round();
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            sleep(ROUND).await;
        }
    }

    fn kill_round(&self) -> usize {
        let all: Vec<Pid> = self
            .processes()
            .into_iter()
            .filter(|pid| is_live_process(*pid))
            .collect();
        if all.is_empty() {
            return 0;
        }
        // At once, so that nothing can fork its way out. Only version 2 has it, since Linux 5.14.
        if fs::write(self.0.join("cgroup.kill"), "1").is_ok() {
            return all.len();
        }
        for pid in &all {
            match kill(*pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => tracing::warn!(%pid, %error, "process can't be killed"),
            }
        }
        all.len()
    }

    /// All in it and below, dead ones that nobody has collected included.
    fn processes(&self) -> BTreeSet<Pid> {
        let mut found = BTreeSet::new();
        collect(&self.0, DEPTH_MAX, &mut found);
        found
    }
}

fn holds(dir: &Path, pid: Pid) -> bool {
    let mut found = BTreeSet::new();
    collect(dir, 0, &mut found);
    found.contains(&pid)
}

fn collect(dir: &Path, depth: usize, found: &mut BTreeSet<Pid>) {
    // It is gone as soon as it is empty and its unit has ended.
    let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) else {
        return;
    };
    found.extend(
        text.lines()
            .filter_map(|line| line.parse().ok())
            .map(Pid::from_raw),
    );
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, found);
        }
    }
}

/// Paths of the unit's group in `/proc/<pid>/cgroup`, below where each is mounted. Beside version 1, there may
/// be one in systemd's own hierarchy and one in version 2, and either may be the whole machine's.
fn unit_paths<'a>(table: &'a str, unit: &'a str) -> impl Iterator<Item = &'a str> {
    table
        .lines()
        .filter_map(|line| {
            let (_, hierarchy) = line.split_once(':')?;
            hierarchy
                .strip_prefix("name=systemd:")
                .or_else(|| hierarchy.strip_prefix(':'))
        })
        .filter(move |path| path.rsplit('/').next() == Some(unit))
        .map(|path| path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use nix::unistd::getpid;
    use rstest::rstest;

    use super::{Cgroup, unit_paths};

    #[rstest]
    #[case("0::/system.slice/b.service\n", &["system.slice/b.service"])]
    #[case("5:cpu:/b.service\n1:name=systemd:/a/b.service\n0::/\n", &["a/b.service"])]
    #[case("9:name=systemd:/\n0::/b.service\n", &["b.service"])]
    #[case("0::/other.service\n0::/b.service/below\n0::/xb.service\n", &[])]
    #[case("", &[])]
    #[case("nonsense", &[])]
    fn the_unit_is_found_in_either_version(#[case] table: &str, #[case] paths: &[&str]) {
        let found: Vec<_> = unit_paths(table, "b.service").collect();
        assert_eq!(found, paths);
    }

    #[test]
    fn a_group_is_read_with_those_below_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("nested")).unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
        let own = getpid();
        std::fs::write(dir.path().join("nested/cgroup.procs"), format!("{own}\n")).unwrap();
        let group = Cgroup(dir.path().to_owned());
        assert!(group.processes().contains(&own));
        assert!(!group.worker_exists());
        let gone = Cgroup(dir.path().join("gone"));
        assert!(gone.processes().is_empty());
    }
}
