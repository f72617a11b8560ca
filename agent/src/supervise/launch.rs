//! The launcher: what the runner's unit runs. It is the runner's user in the runner's cgroup already, gets
//! the errand from the supervisor, and becomes the runner.
//!
//! So the configuration is in no file, no argument and no unit's environment.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::account;

/// Longest errand, in bytes.
const SIZE_MAX: u64 = 1024 * 1024;
/// Longest wait for the supervisor's word.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the launcher is told.
#[derive(Debug)]
pub(crate) struct Errand {
    /// The program to become.
    pub(crate) program: PathBuf,
    /// Its working directory.
    pub(crate) directory: PathBuf,
    /// The console's FIFO.
    pub(crate) console: PathBuf,
    /// Environment without secrets, on top of the account's.
    pub(crate) environment: BTreeMap<String, String>,
    /// Environment with secrets.
    pub(crate) secrets: BTreeMap<String, SecretString>,
}

/// As it is written, and never shown.
#[derive(Serialize, Deserialize)]
struct Written {
    program: PathBuf,
    directory: PathBuf,
    console: PathBuf,
    environment: BTreeMap<String, String>,
}

/// The errand as text, secrets included.
pub(super) fn write(errand: &Errand) -> io::Result<Zeroizing<Vec<u8>>> {
    let secrets = errand
        .secrets
        .iter()
        .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
    let written = Written {
        program: errand.program.clone(),
        directory: errand.directory.clone(),
        console: errand.console.clone(),
        environment: errand
            .environment
            .clone()
            .into_iter()
            .chain(secrets)
            .collect(),
    };
    serde_json::to_vec(&written)
        .map(Zeroizing::new)
        .map_err(io::Error::other)
}

/// Fetches the errand from the supervisor's `socket` and becomes the runner. Returns only if it can't.
pub(crate) fn launch(socket: &Path) -> anyhow::Result<std::convert::Infallible> {
    let written = fetch(socket)
        .with_context(|| format!("failed to get the errand from {}", socket.display()))?;
    let console = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&written.console)
        .with_context(|| format!("failed to open {}", written.console.display()))?;
    let errors = console.try_clone().context("failed to copy a descriptor")?;
    // `exec` also gives back the default disposition of SIGPIPE and an empty signal mask.
    let error = Command::new(&written.program)
        .arg("run")
        .current_dir(&written.directory)
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(errors)
        .env_clear()
        .envs(account::environment())
        .envs(&written.environment)
        .exec();
    Err(error).with_context(|| format!("failed to run {}", written.program.display()))
}

fn fetch(socket: &Path) -> io::Result<Written> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Zeroizing::new(Vec::new());
    stream.take(SIZE_MAX).read_to_end(&mut text)?;
    // Its text is not shown: there is a secret in it.
    serde_json::from_slice(&text)
        .map_err(|_| io::Error::other("the supervisor sent nothing usable"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use super::{Errand, fetch, launch, write};

    #[test]
    fn an_errand_arrives_whole_and_shows_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let errand = Errand {
            program: "/x/bin/Runner.Listener".into(),
            directory: "/x".into(),
            console: "/y".into(),
            environment: [("A".to_owned(), "a".to_owned())].into(),
            secrets: [("B".to_owned(), "s3cret".to_owned().into())].into(),
        };
        assert!(!format!("{errand:?}").contains("s3cret"));
        let supervisor = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&write(&errand).unwrap()).unwrap();
            drop(stream);
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"s3cret").unwrap();
        });
        let got = fetch(&socket).unwrap();
        assert_eq!(got.environment["A"], "a");
        assert_eq!(got.environment["B"], "s3cret");
        let error = format!("{:#}", launch(&socket).unwrap_err());
        assert!(
            error.contains("nothing usable") && !error.contains("s3cret"),
            "{error}"
        );
        supervisor.join().unwrap();
    }
}
