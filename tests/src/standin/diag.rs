//! What the runner writes beside its console: `_diag` logs and the performance counters.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// One process's `_diag/<name>_<utc>-utc.log` (actions/runner `HostTraceListener.cs:12,137`).
pub(super) struct Diag {
    file: Option<File>,
    pub(super) path: PathBuf,
}

impl Diag {
    /// Opens the log. Without one, as on a full disk, lines are lost.
    pub(super) fn open(root: &Path, name: &str) -> Self {
        let folder = root.join("_diag");
        let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let path = folder.join(format!("{name}_{stamp}-utc.log"));
        let made = std::fs::create_dir_all(folder.join("pages"));
        let file = made
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
            .ok();
        Self { file, path }
    }

    pub(super) fn info(&mut self, class: &str, text: &str) {
        if let Some(file) = &mut self.file {
            drop(writeln!(file, "[{} INFO {class}] {text}", stamp()));
        }
    }
}

/// `{DateTime.UtcNow:u}`.
pub(super) fn stamp() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `RUNNER_PERFLOG` (actions/runner `HostContext.cs:165-178,633-650`).
pub(super) struct Perf {
    file: Option<PathBuf>,
}

impl Perf {
    pub(super) fn new(folder: Option<&String>, name: &str) -> Self {
        let file = folder.filter(|folder| !folder.is_empty()).map(|folder| {
            drop(std::fs::create_dir_all(folder));
            Path::new(folder).join(format!("{name}.perf"))
        });
        Self { file }
    }

    pub(super) fn count(&self, counter: &str) {
        let Some(file) = &self.file else { return };
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.7fZ");
        let line = format!("{}:{now}\n", counter.replace(':', "_"));
        let opened = OpenOptions::new().create(true).append(true).open(file);
        drop(opened.and_then(|mut file| file.write_all(line.as_bytes())));
    }
}

/// Prints a line. A reader that has gone does not matter to the runner.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Prints a line on stderr.
pub(super) fn complain(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
