//! Everything that the runner left behind: found in `/proc`, killed, reaped.
//!
//! The agent is the subreaper of its descendants, so a process whose parent died becomes the agent's
//! child and stays findable, even one that made its own session.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::time::{Instant, sleep};

/// The variable that marks every process of an instance's runner.
pub(crate) const INSTANCE_VARIABLE: &str = "MUSTER_INSTANCE_ID";
/// Name of the worker process in `/proc/<pid>/comm`.
pub(super) const WORKER: &str = "Runner.Worker";
/// How many children are collected at a time.
const REAPED_MAX: usize = 1024;
/// Between two rounds of killing.
const ROUND: Duration = Duration::from_millis(20);

/// Makes orphaned descendants this process's children.
pub(crate) fn adopt_orphans() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Collects adopted children that have ended, so that a long job doesn't fill the process table with
/// them. `runner` is left to the runtime, which waits for it.
pub(crate) fn reap_adopted(runner: Option<Pid>) {
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    for _ in 0..REAPED_MAX {
        // No child at all is an error, none that has ended is a status without a pid.
        let Ok(Some(pid)) = waitid(Id::All, peek).map(|status| status.pid()) else {
            return;
        };
        if Some(pid) == runner {
            return;
        }
        reap(pid);
    }
}

/// A fresh look: whether a worker process is among this process's descendants.
pub(crate) fn worker_exists() -> bool {
    let table = Table::read();
    table
        .descendants(getpid())
        .iter()
        .any(|pid| table.is_worker(*pid))
}

/// Kills every descendant, and every process that carries `instance_id` in its environment, until none
/// is left or `limit` is over. Returns how many were still there.
///
/// `runner` is killed too, but not reaped: the runtime waits for it and wants its exit status.
pub(crate) async fn kill_all(instance_id: &str, runner: Option<Pid>, limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    loop {
        let left = kill_round(instance_id, runner);
        if left == 0 || Instant::now() >= deadline {
            return left;
        }
        sleep(ROUND).await;
    }
}

/// Signals all there are, reaps what has ended, and returns how many live on.
fn kill_round(instance_id: &str, runner: Option<Pid>) -> usize {
    let own = getpid();
    let table = Table::read();
    let mut targets = table.descendants(own);
    let ancestors = table.ancestors(own);
    targets
        .extend(marked(&table, instance_id).filter(|pid| *pid != own && !ancestors.contains(pid)));
    let mut left = 0;
    for pid in targets {
        if table.processes.get(&pid).is_some_and(|p| p.zombie) {
            if table.is_child(pid, own) && Some(pid) != runner {
                reap(pid);
            }
            continue;
        }
        match kill(pid, Signal::SIGKILL) {
            Ok(()) => left += 1,
            Err(Errno::ESRCH) => {}
            Err(error) => {
                tracing::warn!(%pid, %error, "process can't be killed");
                left += 1;
            }
        }
    }
    left
}

/// Whether a process exists and has not ended.
pub(super) fn is_live_process(pid: Pid) -> bool {
    fs::read(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| parse_stat(&String::from_utf8_lossy(&stat)))
        .is_some_and(|process| !process.zombie)
}

/// Collects an adopted child that has ended.
fn reap(pid: Pid) {
    if let Ok(WaitStatus::StillAlive) = waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        tracing::debug!(%pid, "a zombie that can't be reaped yet");
    }
}

fn marked<'a>(table: &'a Table, instance_id: &'a str) -> impl Iterator<Item = Pid> + 'a {
    let mark = format!("{INSTANCE_VARIABLE}={instance_id}");
    table.processes.keys().copied().filter(move |pid| {
        // Processes of other users are not readable, and not ours to kill.
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        })
    })
}

/// The process table at one moment.
#[derive(Debug)]
struct Table {
    processes: HashMap<Pid, Process>,
}

#[derive(Debug)]
struct Process {
    parent: Pid,
    name: String,
    zombie: bool,
}

impl Table {
    fn read() -> Self {
        let mut processes = HashMap::new();
        if let Ok(entries) = fs::read_dir("/proc") {
            for entry in entries.flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                    continue;
                };
                // It may be gone by now.
                if let Ok(stat) = fs::read(entry.path().join("stat"))
                    && let Some(process) = parse_stat(&String::from_utf8_lossy(&stat))
                {
                    processes.insert(Pid::from_raw(pid), process);
                }
            }
        }
        Self { processes }
    }

    fn descendants(&self, of: Pid) -> BTreeSet<Pid> {
        let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
        for (pid, process) in &self.processes {
            children.entry(process.parent).or_default().push(*pid);
        }
        let mut found = BTreeSet::new();
        let mut open = vec![of];
        while let Some(pid) = open.pop() {
            for child in children.get(&pid).into_iter().flatten() {
                if found.insert(*child) {
                    open.push(*child);
                }
            }
        }
        found
    }

    fn ancestors(&self, of: Pid) -> BTreeSet<Pid> {
        let mut found = BTreeSet::new();
        let mut pid = of;
        while let Some(process) = self.processes.get(&pid)
            && found.insert(process.parent)
        {
            pid = process.parent;
        }
        found
    }

    fn is_child(&self, pid: Pid, of: Pid) -> bool {
        self.processes.get(&pid).is_some_and(|p| p.parent == of)
    }

    fn is_worker(&self, pid: Pid) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|process| !process.zombie && process.name == WORKER)
    }
}

/// Reads `/proc/<pid>/stat`: `pid (name) state ppid …`, where the name may hold anything.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process {
        parent: Pid::from_raw(parent),
        name: name.to_owned(),
        zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Pid, getpid, getppid};

    use super::{Table, parse_stat};

    #[test]
    fn a_process_can_not_hide_behind_its_name() {
        let process = parse_stat("7 (a) S 1 (b) Z 42 0 0").unwrap();
        assert_eq!(process.name, "a) S 1 (b");
        assert_eq!(process.parent, Pid::from_raw(42));
        assert!(process.zombie);
        assert!(parse_stat("").is_none());
        assert!(parse_stat("7 (a) S").is_none());
    }

    #[test]
    fn the_own_process_is_found_with_its_parent() {
        let table = Table::read();
        assert!(table.is_child(getpid(), getppid()));
        assert!(table.ancestors(getpid()).contains(&getppid()));
        assert!(table.descendants(getppid()).contains(&getpid()));
    }
}
