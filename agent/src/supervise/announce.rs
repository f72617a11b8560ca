//! Tells the job that its host will be taken away: a file that says when, and a hook that it may leave.
//!
//! The job learns both paths from its environment. The hook is run once, as the job's user, if the job
//! has put an executable there; it ends with the job.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::timeout;

use super::account;
use super::descendants::INSTANCE_VARIABLE;
use super::listener::job_dir;
use crate::config::Mode;

/// Names the file in the job's environment.
pub(super) const FILE_VARIABLE: &str = "MUSTER_INTERRUPTION_FILE";
/// Names the hook in the job's environment.
pub(super) const HOOK_VARIABLE: &str = "MUSTER_INTERRUPTION_HOOK";
/// The unit of the hook, on a host whose runner has one. It knows the paths above.
const HOOK_UNIT: &str = "muster-interruption-hook.service";
/// Longest time that the hook may take: the notice of a Spot interruption.
const HOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// The file, in a directory that the job can't write to.
pub(super) fn file(work_dir: &Path) -> PathBuf {
    work_dir.join("interruption.json")
}

/// The hook, in the job's own directory.
pub(super) fn hook(work_dir: &Path) -> PathBuf {
    job_dir(work_dir).join("interruption-hook")
}

/// What the file says.
#[derive(Debug, Serialize)]
pub(crate) struct Announcement {
    /// Why, for people and scripts.
    pub(crate) reason: String,
    /// When the instance goes.
    pub(crate) instance_ends_at: Timestamp,
    /// When the job is told to stop.
    pub(crate) job_stops_at: Timestamp,
}

/// Writes the file, so that a reader finds all of it or none.
pub(crate) fn write(work_dir: &Path, announcement: &Announcement) -> std::io::Result<()> {
    let text = serde_json::to_vec(announcement).map_err(std::io::Error::other)?;
    let path = file(work_dir);
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, path)
}

/// Runs the hook, if the job has left one, for at most 120 s.
pub(crate) async fn run_hook(work_dir: PathBuf, mode: Mode, mark: String) {
    let hook = hook(&work_dir);
    let mut command = match &mode {
        Mode::Child { .. } => {
            // In the unit, systemd says whether it can be run: root may run anything.
            if access(&hook, AccessFlags::X_OK).is_err() {
                return;
            }
            let mut command = Command::new(&hook);
            command.env_clear().envs(account::environment());
            command.process_group(0);
            command
        }
        Mode::Unit(_) => {
            if !hook.exists() {
                return;
            }
            // Its limits, its user and its environment are in the unit.
            let mut command = Command::new("systemctl");
            command.args(["start", HOOK_UNIT]);
            command
        }
    };
    command
        .env(FILE_VARIABLE, file(&work_dir))
        .env(INSTANCE_VARIABLE, mark)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    tracing::info!(hook = %hook.display(), "running the job's interruption hook");
    match timeout(HOOK_TIMEOUT, command.status()).await {
        Ok(Ok(status)) => tracing::info!(%status, "the job's interruption hook ended"),
        Ok(Err(error)) => tracing::warn!(%error, "the job's interruption hook can't be run"),
        Err(_) => tracing::warn!("the job's interruption hook took too long and was killed"),
    }
}
