//! What survives the supervisor's own death: a file in memory (`/run`), replaced as a whole.
//!
//! It holds no secret: neither the runner's configuration nor the agent's key.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::journal::Journal;
use crate::boot::since_boot;
use crate::local::{Marks, Notice};
use crate::steady::Steady;
use crate::supervise::cgroup::Cgroup;
use crate::supervise::snapshot::Snapshot;

/// Largest file that is read back, in bytes.
const SIZE_MAX: u64 = 16 * 1024 * 1024;

/// What is saved.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The state machine.
    pub(super) machine: Option<Snapshot>,
    /// Events without an acknowledgement.
    pub(super) journal: Journal,
    /// Name in the one assignment.
    pub(super) runner_name: Option<String>,
    /// As the runner printed it.
    pub(super) runner_version: String,
    /// When the steps of the start were reached.
    pub(super) marks: Marks,
    /// What time it was before there was a job.
    pub(super) steady: Option<Steady>,
    /// Notices that were reported.
    pub(super) notices: Vec<Notice>,
    /// Nothing may start any more.
    pub(super) draining: bool,
    /// How long the pool lets its instances live, where that is more than the image says.
    pub(super) lifetime: Option<Duration>,
    /// The end was reported.
    pub(super) ended: bool,
    /// The job's interruption hook was run.
    pub(super) hook_ran: bool,
    /// The cgroup of the runner.
    pub(super) cgroup: Option<Cgroup>,
}

/// When it was saved. On the clock that goes on while no supervisor lives, and starts with the boot.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// Age of the machine.
    age: Duration,
    /// Time since the boot.
    boot: Duration,
}

/// The file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// The last text, so that an unchanged state is not written again.
    written: Vec<u8>,
}

impl StateFile {
    /// The file `path`, which need not exist.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            written: Vec::new(),
        }
    }

    /// What an earlier process saved, and the age of its machine by now; nothing if there was none. An
    /// unreadable file is an error: the host may have a job.
    pub(super) fn load(&self) -> io::Result<Option<(Saved, Duration)>> {
        let size = match fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if size > SIZE_MAX {
            return Err(io::Error::other(format!("{size} bytes are too many")));
        }
        let text = fs::read(&self.path)?;
        let mut documents = serde_json::Deserializer::from_slice(&text);
        let header = Header::deserialize(&mut documents)?;
        let saved = Saved::deserialize(&mut documents)?;
        let since = since_boot().saturating_sub(header.boot);
        Ok(Some((saved, header.age.saturating_add(since))))
    }

    /// Saves, so that a reader finds the old state or the new one. `age` is the machine's.
    pub(super) fn save(&mut self, saved: &Saved, age: Duration) -> io::Result<()> {
        let text = serde_json::to_vec(saved).map_err(io::Error::other)?;
        if text == self.written {
            return Ok(());
        }
        let fresh = self.path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        let boot = since_boot();
        file.write_all(&serde_json::to_vec(&Header { age, boot })?)?;
        file.write_all(&text)?;
        fs::rename(&fresh, &self.path)?;
        self.written = text;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Saved, StateFile};

    #[test]
    fn what_was_saved_is_loaded_and_garbage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::new(path.clone());
        assert!(file.load().unwrap().is_none());
        let saved = Saved {
            runner_name: Some("r".into()),
            draining: true,
            ..Saved::default()
        };
        let second = Duration::from_secs(1);
        file.save(&saved, second).unwrap();
        let (loaded, age) = file.load().unwrap().unwrap();
        assert!(age >= second && age < 60 * second, "{age:?}");
        // Nothing new is nothing to write, whatever the time.
        std::fs::remove_file(&path).unwrap();
        file.save(&saved, 2 * second).unwrap();
        assert!(!path.exists());
        assert_eq!(loaded.runner_name.as_deref(), Some("r"));
        assert!(loaded.draining && !loaded.ended);
        std::fs::write(&path, "{").unwrap();
        assert!(file.load().is_err());
    }
}
