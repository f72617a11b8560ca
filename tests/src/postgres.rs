//! A PostgreSQL server of a test's own.

use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A server, which is gone when this is dropped.
#[derive(Debug)]
pub struct Server {
    directory: String,
    options: Vec<String>,
    _in_use: File,
}

/// Runs `tests/postgres`; gives what it prints, or what it says of its failure.
fn try_script(arguments: &[&str], temporary: Option<&Path>) -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/postgres");
    let mut command = Command::new(script);
    command.args(arguments);
    if let Some(temporary) = temporary {
        command.env("TMPDIR", temporary);
    }
    let output = command.output();
    let output = output.map_err(|error| format!("{script}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let told = String::from_utf8_lossy(&output.stderr);
        Err(format!("{arguments:?}: {told}"))
    }
}

fn script(arguments: &[&str], temporary: Option<&Path>) -> String {
    try_script(arguments, temporary).unwrap_or_else(|error| panic!("{error}"))
}

impl Server {
    /// Starts one with options such as `fsync=off`.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        Self::make(options, None)
    }

    /// Starts one whose files are in a folder of this one.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn start_in(folder: &Path, options: &[&str]) -> Self {
        Self::make(options, Some(folder))
    }

    fn make(options: &[&str], folder: Option<&Path>) -> Self {
        let arguments: Vec<_> = [&["new"], options].concat();
        let directory = script(&arguments, folder);
        let in_use = File::open(Path::new(&directory).join("in-use"));
        let in_use = in_use.unwrap_or_else(|error| panic!("{directory}: {error}"));
        // Who watches over it stops it once nobody holds this.
        assert!(in_use.lock_shared().is_ok(), "{directory} can't be locked");
        Self {
            directory,
            options: options.iter().map(|&option| option.to_owned()).collect(),
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

    /// Stops it as a power cut would.
    ///
    /// # Panics
    /// When the script can't be run.
    pub fn stop(&self) {
        script(&["stop", &self.directory], None);
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it doesn't start; what it said.
    pub fn start_again(&self) -> Result<(), String> {
        let options = self.options.iter().map(String::as_str);
        let arguments: Vec<_> = ["start", &self.directory]
            .into_iter()
            .chain(options)
            .collect();
        try_script(&arguments, None).map(drop)
    }

    /// Whether somebody answers at its socket.
    #[must_use]
    pub fn answers(&self) -> bool {
        let socket = Path::new(&self.directory).join(".s.PGSQL.5432");
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script(&["remove", &self.directory], None);
    }
}
