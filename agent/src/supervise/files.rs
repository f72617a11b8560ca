//! Files and directories beside a job that may be hostile: whose they are, and what is read of them.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, User, chown};

/// Lets `group` use `path`. Its owner stays. Does nothing for a process that may not give files away.
pub(crate) fn give_to_group(path: &Path, group: Gid, mode: u32) -> io::Result<()> {
    if Uid::effective().is_root() {
        chown(path, None, Some(group))?;
    }
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

/// Makes the directory `path` and gives it to `user`.
pub(crate) fn give_directory(path: &Path, user: &User) -> io::Result<()> {
    fs::create_dir_all(path)?;
    chown(path, Some(user.uid), Some(user.gid))?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}

/// A directory that a job can write to, opened once: what it puts in its place later doesn't matter.
#[derive(Debug)]
pub(crate) struct ForeignDir(OwnedFd);

impl ForeignDir {
    /// Opens `name` in `parent`. A symbolic link is an error.
    pub(crate) fn open(parent: &Path, name: &str) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let parent = File::open(parent)?;
        Ok(Self(openat(parent, name, flags, Mode::empty())?))
    }

    /// Names of at most `most` entries.
    pub(crate) fn names(&self, most: usize) -> io::Result<Vec<String>> {
        let mut dir = Dir::openat(
            &self.0,
            ".",
            OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        Ok(dir
            .iter()
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str().map(str::to_owned).ok())
            .take(most)
            .collect())
    }

    /// The last `most` bytes of a file. Anything but a plain file is an error, a link and a FIFO too.
    pub(crate) fn tail(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.0, name, flags, Mode::empty())?);
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("not a plain file"));
        }
        file.seek(SeekFrom::Start(found.len().saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::ForeignDir;

    #[test]
    fn only_plain_files_are_read_and_only_their_ends() {
        let dir = tempfile::tempdir().unwrap();
        let diag = dir.path().join("_diag");
        std::fs::create_dir(&diag).unwrap();
        std::fs::write(diag.join("plain"), "0123456789").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", diag.join("link")).unwrap();
        mkfifo(&diag.join("fifo"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&diag, dir.path().join("link")).unwrap();

        let found = ForeignDir::open(dir.path(), "_diag").unwrap();
        assert_eq!(found.tail("plain", 4).unwrap(), b"6789");
        for name in ["link", "fifo", "none", "."] {
            assert!(found.tail(name, 4).is_err(), "{name}");
        }
        assert!(found.names(100).unwrap().contains(&"plain".to_owned()));
        assert_eq!(found.names(1).unwrap().len(), 1);
        assert!(ForeignDir::open(dir.path(), "link").is_err());
    }
}
