//! A PostgreSQL server of a test's own.

use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A server, which is gone when this is dropped.
#[derive(Debug)]
pub struct Server {
    directory: String,
    _in_use: File,
}

/// Runs `tests/postgres`; gives what it prints.
fn script(arguments: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/postgres");
    let output = Command::new(script).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Server {
    /// Starts one with options such as `fsync=off`.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        let arguments: Vec<_> = [&["new"], options].concat();
        let directory = script(&arguments);
        let in_use = File::open(Path::new(&directory).join("in-use"));
        let in_use = in_use.unwrap_or_else(|error| panic!("{directory}: {error}"));
        // Who watches over it stops it once nobody holds this.
        assert!(in_use.lock_shared().is_ok(), "{directory} can't be locked");
        Self {
            directory,
            _in_use: in_use,
        }
    }

    /// Where its database is.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@localhost/postgres?host={}",
            self.directory
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script(&["remove", &self.directory]);
    }
}
