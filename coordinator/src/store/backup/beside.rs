//! Files on their way to their place.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::super::database::sqlite::directory_of;
use super::{BackupError, file, with_suffix};

/// A file that is being written beside its place. Removed if it doesn't get there.
pub(super) struct Beside {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl Beside {
    /// An empty file that only its owner may read.
    pub(super) fn of(place: &Path) -> Result<Self, BackupError> {
        remove_left_overs(place);
        Self::made(with_suffix(place, &format!(".{}.new", std::process::id())))
    }

    /// The same for a place whose directory may have yet to be made: in the nearest one above that is there,
    /// and so in the file system of what will be made in it.
    pub(super) fn above(place: &Path) -> Result<Self, BackupError> {
        let there = directory_of(place)
            .ancestors()
            .map(|above| match above.as_os_str().is_empty() {
                true => Path::new("."),
                false => above,
            })
            .find(|above| above.is_dir());
        match (there, place.file_name()) {
            (Some(there), Some(name)) => Self::of(&there.join(name)),
            _ => Self::of(place),
        }
    }

    fn made(path: PathBuf) -> Result<Self, BackupError> {
        // A left-over of a process with the same id that was killed; in a container all have the same.
        remove(&path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(file(&path))?;
        Ok(Self { path, file })
    }

    /// Moves it to its place, on disk before it is seen there.
    pub(super) fn become_file(self, place: &Path, replace: bool) -> Result<(), BackupError> {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        synced.map_err(file(&self.path))?;
        let moved = if replace {
            fs::rename(&self.path, place)
        } else {
            // Unlike a rename it replaces nothing.
            fs::hard_link(&self.path, place)
        };
        moved.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(place.to_owned()),
            _ => file(place)(error),
        })?;
        let directory = directory_of(place);
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(file(directory))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// What SQLite makes beside a file while it writes or checks it.
const SIDES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Removes a file and what belongs to it.
fn remove(path: &Path) {
    drop(fs::remove_file(path));
    for side in SIDES {
        drop(fs::remove_file(with_suffix(path, side)));
    }
}

/// Removes what processes that are no more have left beside a place: each may be as large as the database. One that
/// can't be removed is no reason to make no copy.
fn remove_left_overs(place: &Path) {
    let (Some(name), Ok(entries)) = (place.file_name(), fs::read_dir(directory_of(place))) else {
        return;
    };
    for entry in entries.flatten() {
        let ended = maker(&entry.file_name(), name)
            .is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH));
        if ended {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// The process that made such a file beside the place of this name; none if it is another file.
fn maker(file: &OsStr, name: &OsStr) -> Option<i32> {
    let rest = file.as_bytes().strip_prefix(name.as_bytes())?;
    let rest = str::from_utf8(rest).ok()?.strip_prefix('.')?;
    let side = SIDES.iter().find_map(|side| rest.strip_suffix(side));
    let number = side.unwrap_or(rest).strip_suffix(".new")?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let pid = number.parse().ok().filter(|pid| *pid > 0);
    pid.filter(|_| is_number)
}
