//! "Cleaning up orphan processes" (actions/runner `JobExtension.cs:880-927`): whatever carries the
//! job's tracking id and was not there when the job began.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// All processes there are.
pub(super) fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Kills what a job has left behind.
pub(super) fn orphans(tracking_id: &str, before: &[i32]) {
    let needle = format!("RUNNER_TRACKING_ID={tracking_id}");
    for pid in pids().into_iter().filter(|pid| !before.contains(pid)) {
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let marked = environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == needle.as_bytes());
        if marked {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}
