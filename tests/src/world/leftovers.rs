//! What should not be left: processes of instances, and registrations at GitHub.

use std::path::Path;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::fakes::github::FakeGithub;

/// What was left of a world after its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Processes of its instances: id and command line.
    pub processes: Vec<(i32, String)>,
    /// Names of runners that GitHub still has.
    pub registrations: Vec<String>,
    /// Instances that EC2 still has.
    pub instances: Vec<String>,
    /// Requests and answers that depart from GitHub's description or AWS's models.
    pub violations: Vec<String>,
}

impl Left {
    pub(super) fn look(github: &FakeGithub, instances: &Path) -> Self {
        Self {
            processes: marked_processes(instances),
            registrations: github
                .runners()
                .into_iter()
                .map(|runner| runner.name)
                .collect(),
            instances: Vec::new(),
            violations: github.violations(),
        }
    }

    /// True if nothing is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The living processes of all instances that have a folder here.
#[must_use]
pub fn marked_processes(instances: &Path) -> Vec<(i32, String)> {
    let Ok(folders) = std::fs::read_dir(instances) else {
        return Vec::new();
    };
    let names: Vec<String> = folders
        .flatten()
        .filter_map(|folder| folder.file_name().into_string().ok())
        .collect();
    processes_of(&names)
}

/// The living processes of these instances.
#[must_use]
pub fn processes_of(instances: &[String]) -> Vec<(i32, String)> {
    let marks: Vec<String> = instances
        .iter()
        .map(|instance| format!("MUSTER_INSTANCE_ID={instance}"))
        .collect();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|variable| marks.iter().any(|mark| mark.as_bytes() == variable))
            })
        })
        .map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (
                pid,
                String::from_utf8_lossy(&line)
                    .replace('\0', " ")
                    .trim()
                    .to_owned(),
            )
        })
        .collect()
}

pub(super) fn kill(instances: &Path) {
    kill_all(marked_processes(instances));
}

/// Ends these processes.
pub fn kill_all(processes: Vec<(i32, String)>) {
    for (pid, _) in processes {
        // It may have ended in between.
        let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
