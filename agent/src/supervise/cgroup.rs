//! The cgroup of the runner's unit: who is in it, and the end of them all.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>. The job may make groups of its own below it, as many
//! and as deep as it likes, so nothing here walks through them: the kernel kills and says whether anybody is
//! left, and who is in it is read from the processes. Where systemd still has a hierarchy of version 1, they
//! are killed one by one.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::descendants::{WORKER, is_live_process};
use super::exit_record;

/// Where cgroups are mounted: version 2 beside version 1, version 1 with systemd's hierarchy, version 2 alone.
const MOUNTS: [&str; 3] = [
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup",
];
/// Between two rounds of killing.
const ROUND: Duration = Duration::from_millis(20);
/// How deep the kernel lets a job nest groups below its own: enough for containers in containers.
/// `cgroup.max.descendants` stays without a bound: a job that used it up would leave systemd no room for the
/// group in which it runs the unit's `ExecStopPost`, and so no word on the runner's end.
const DEPTH_MAX: &str = "32";

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
            .find(|dir| own_processes(dir).any(|other| other == pid))
            .map(Self)
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The directory of it.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Bounds how deep groups go below it, where the kernel can. A job that isn't root can't take that back.
    pub(crate) fn bound(&self) {
        match overwrite(&self.0.join("cgroup.max.depth"), DEPTH_MAX) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "the groups of the job are not bounded");
            }
            _ => {}
        }
    }

    /// Whether a worker process is in it, or in a group below it.
    pub(crate) fn worker_exists(&self) -> bool {
        // Where the runner has made it; the job can have moved it since.
        own_processes(&self.0).any(is_worker)
            || processes().any(|pid| is_worker(pid) && self.contains(pid))
    }

    /// Kills all in it, until it is empty or `limit` is over. Returns how many are left.
    ///
    /// With the unit's main process gone, systemd runs in a group below this one what records in `records` how
    /// it ended. That is spared until it has done so: else nobody would know. For half of the time at most, as
    /// whoever is root in here is spared with it.
    pub(crate) async fn kill_all(&self, records: &Path, limit: Duration) -> usize {
        let begun = Instant::now();
        loop {
            let spares = begun.elapsed() < limit / 2 && !is_recorded(records);
            // There may be many.
            let group = self.clone();
            let left = match spawn_blocking(move || group.kill_round(spares)).await {
                Ok(left) => left,
                Err(error) => {
                    tracing::error!(%error, "a round of killing failed");
                    1
                }
            };
            if left == 0 || begun.elapsed() >= limit {
                return left;
            }
            sleep(ROUND).await;
        }
    }

    fn kill_round(&self, spares_root: bool) -> usize {
        // All at once and at any depth, so that nothing can fork its way out or hide. Only version 2 has it,
        // since Linux 5.14.
        let killed = !spares_root && overwrite(&self.0.join("cgroup.kill"), "1").is_ok();
        if !self.populated() {
            return 0;
        }
        let all: Vec<Pid> = processes()
            .filter(|pid| self.contains(*pid) && is_live_process(*pid))
            .collect();
        if killed {
            return all.len().max(1);
        }
        for pid in &all {
            if spares_root && is_roots(*pid) {
                continue;
            }
            match kill(*pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => tracing::warn!(%pid, %error, "process can't be killed"),
            }
        }
        // Whoever is spared may be gone before he is counted, and leave the group to be looked at again.
        all.len().max(usize::from(spares_root))
    }

    /// Whether anybody lives in it or below. Version 1 doesn't say, and may have somebody.
    fn populated(&self) -> bool {
        match fs::read_to_string(self.0.join("cgroup.events")) {
            Ok(text) => !text.lines().any(|line| line == "populated 0"),
            // It is gone as soon as it is empty and its unit has ended.
            Err(_) => self.0.exists(),
        }
    }

    /// Whether a process is in it or in a group below it.
    fn contains(&self, pid: Pid) -> bool {
        let below = MOUNTS
            .iter()
            .find_map(|mount| self.0.strip_prefix(mount).ok());
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        below.is_some_and(|below| paths(&table).any(|path| Path::new(path).starts_with(below)))
    }
}

/// Whether there is a word on how the main process ended, whatever it says.
fn is_recorded(records: &Path) -> bool {
    matches!(exit_record::read(records), Ok(Some(_)))
}

/// Whether a process is root's in every respect. Not by the owner of its directory, which is root for any
/// process that can't be dumped.
fn is_roots(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut ids = status.lines().filter_map(|line| line.strip_prefix("Uid:"));
    ids.next()
        .is_some_and(|ids| ids.split_whitespace().all(|id| id == "0"))
}

fn is_worker(pid: Pid) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end() == WORKER && is_live_process(pid)
}

/// Every process of the host.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
}

/// Those of one group, without the ones below it.
fn own_processes(dir: &Path) -> impl Iterator<Item = Pid> + use<> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let pids: Vec<Pid> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .map(Pid::from_raw)
        .collect();
    pids.into_iter()
}

/// Writes to a control file, which must exist.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Paths of the unit's group in `/proc/<pid>/cgroup`, below where each is mounted. Beside version 1, there may
/// be one in systemd's own hierarchy and one in version 2, and either may be the whole machine's.
fn unit_paths<'a>(table: &'a str, unit: &'a str) -> impl Iterator<Item = &'a str> {
    paths(table).filter(move |path| path.rsplit('/').next() == Some(unit))
}

/// The paths in `/proc/<pid>/cgroup` that systemd manages.
fn paths(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| {
        let (_, hierarchy) = line.split_once(':')?;
        let path = hierarchy
            .strip_prefix("name=systemd:")
            .or_else(|| hierarchy.strip_prefix(':'))?;
        Some(path.trim_start_matches('/'))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
    fn a_process_is_in_its_own_group_and_in_those_above_it() {
        let own = getpid();
        let table = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        for path in super::paths(&table) {
            let group = Cgroup(Path::new("/sys/fs/cgroup").join(path));
            assert!(group.contains(own), "{group:?}");
            assert!(!Cgroup(group.0.join("below")).contains(own), "{group:?}");
        }
        assert!(!Cgroup("/elsewhere".into()).contains(own));
    }

    #[test]
    fn a_group_that_is_gone_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let group = Cgroup(dir.path().join("gone"));
        group.bound();
        assert_eq!(group.kill_round(false), 0);
        assert_eq!(group.kill_round(true), 0);
        std::fs::create_dir(&group.0).unwrap();
        std::fs::write(group.0.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert!(!group.populated());
        std::fs::write(group.0.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert!(group.populated());
    }
}
