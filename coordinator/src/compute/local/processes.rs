//! The processes of an instance, found by a variable that all of them inherit.

use std::time::Duration;

use muster_core::InstanceId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

/// The variable that marks every process of an instance.
pub(super) const MARK: &str = "MUSTER_INSTANCE_ID";

/// Time between two looks at what is left.
const LOOK: Duration = Duration::from_millis(50);

/// Ends an instance: its agent is asked to end what it runs, then all that is left is killed.
/// Returns how many processes are left after all patience.
pub(super) async fn end(instance: &InstanceId, grace: Duration, patience: Duration) -> usize {
    for agent in of(instance)
        .into_iter()
        .filter(|process| process.leads_group)
    {
        send(agent.pid, Signal::SIGTERM);
    }
    if wait_gone(instance, grace, None).await == 0 {
        return 0;
    }
    wait_gone(instance, patience, Some(Signal::SIGKILL)).await
}

/// Whether any process of an instance lives.
pub(super) fn any(instance: &InstanceId) -> bool {
    !of(instance).is_empty()
}

async fn wait_gone(instance: &InstanceId, limit: Duration, signal: Option<Signal>) -> usize {
    let until = Instant::now() + limit;
    loop {
        let left = of(instance);
        if let Some(signal) = signal {
            for process in &left {
                send(process.pid, signal);
            }
        }
        if left.is_empty() || Instant::now() >= until {
            return left.len();
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn send(pid: Pid, signal: Signal) {
    // It may have ended in between; the next look tells.
    let _ = kill(pid, signal);
}

struct Process {
    pid: Pid,
    /// Whether it leads its process group, as the agent does.
    leads_group: bool,
}

/// All living processes of an instance.
fn of(instance: &InstanceId) -> Vec<Process> {
    let mark = format!("{MARK}={instance}");
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| is_marked(pid, mark.as_bytes()))
        .filter_map(living)
        .collect()
}

fn is_marked(pid: i32, mark: &[u8]) -> bool {
    // Unreadable: another user's process, or one that has just ended.
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark)
    })
}

/// Reads `/proc/<pid>/stat`; none for a zombie, which is dead and only waits to be reaped.
fn living(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: fields are counted from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let group: i32 = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then(|| Process {
        pid: Pid::from_raw(pid),
        leads_group: group == pid,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn all_processes_of_an_instance_end_and_no_other() {
        let start = |instance: &str, script: &str| {
            Command::new("sh")
                .args(["-c", script])
                .env(MARK, instance)
                .process_group(0)
                .spawn()
                .unwrap()
        };
        // Marks that no other run of this test has.
        let (mine, others): (InstanceId, InstanceId) = (
            InstanceId::new(format!("i-{:08x}1", std::process::id())),
            InstanceId::new(format!("i-{:08x}2", std::process::id())),
        );
        // One that ignores SIGTERM, with a child that left its group and session.
        let script = "trap '' TERM; setsid sleep 600 & wait; sleep 600";
        let mut stubborn = start(mine.as_str(), script);
        let mut other = start(others.as_str(), "exec sleep 600");
        let until = Instant::now() + Duration::from_secs(10);
        while of(&mine).len() < 2 || of(&others).is_empty() {
            assert!(Instant::now() < until, "the processes did not start");
            tokio::task::yield_now().await;
        }
        let left = end(&mine, Duration::from_millis(100), Duration::from_secs(10)).await;
        let others_left = of(&others).len();
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(left, 0);
        assert!(stubborn.wait().is_ok());
        assert_eq!(others_left, 1);
    }
}
