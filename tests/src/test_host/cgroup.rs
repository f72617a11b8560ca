//! A cgroup for each host: two in one would make and remove the same directories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// Where version 2 is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Where version 1 has systemd's hierarchy: nspawn makes one of the same name in it.
const SYSTEMD: &str = "/sys/fs/cgroup/systemd";
/// How often it is tried to remove one, and the time in between.
const TRIES: u32 = 50;
const RETRY: Duration = Duration::from_millis(10);

/// A cgroup of version 2 below the root. What is in it dies when it is dropped.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        let mount = MOUNTS
            .iter()
            .map(Path::new)
            .find(|mount| mount.join("cgroup.procs").exists())
            .context("no cgroup of version 2 is mounted")?;
        let path = mount.join(name);
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// The file that a process writes its id to, to be in it.
    pub(super) fn entrance(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Both may fail: before Linux 5.14 there is no such file, and the dead may not be gone yet. An empty
        // directory that stays harms nobody.
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let beside = self.0.file_name().map(|name| Path::new(SYSTEMD).join(name));
        let all: Vec<_> = beside.into_iter().chain([self.0.clone()]).collect();
        for _ in 0..TRIES {
            all.iter().for_each(|dir| remove(dir));
            if !all.iter().any(|dir| dir.exists()) {
                return;
            }
            std::thread::park_timeout(RETRY);
        }
    }
}

fn remove(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}
