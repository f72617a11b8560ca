//! What the runner's process is started with, and how as a child.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::super::descendants::INSTANCE_VARIABLE;
use super::super::launch::Errand;
use super::super::unit::{self, UnitError};
use super::super::{account, announce};
use crate::config::Mode;

/// The variable that the configuration goes in (CommandSettings.cs:110-140).
const JIT_VARIABLE: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";

/// What a runner is started with.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The unpacked runner.
    pub(crate) runner_dir: &'a Path,
    /// The supervisor's own directory.
    pub(crate) work_dir: &'a Path,
    /// Marks its processes.
    pub(crate) mark: &'a str,
    /// How its process comes about.
    pub(crate) mode: &'a Mode,
    /// Its configuration. It goes by the environment, since every user can read arguments.
    pub(crate) jit_config: &'a SecretString,
    /// More environment, which wins over the defaults.
    pub(crate) environment: &'a BTreeMap<String, String>,
}

/// The runner could not be started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The pipe for its output could not be made.
    #[error("make a pipe: {0}")]
    Pipe(#[source] io::Error),
    /// The directory for its perf files could not be made.
    #[error("create {path}: {source}", path = .path.display())]
    JobDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process could not be made.
    #[error("run {path}: {source}", path = .path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its unit.
    #[error("{0}")]
    Unit(#[from] UnitError),
}

impl Launch<'_> {
    fn program(&self) -> PathBuf {
        self.runner_dir.join("bin/Runner.Listener")
    }

    /// What the agent sets, without the secret and without what the account sets.
    fn environment(&self) -> BTreeMap<String, String> {
        let own = [
            (
                "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED",
                "1".to_owned(),
            ),
            (
                "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE",
                "1".to_owned(),
            ),
            ("RUNNER_PERFLOG", text(&perf_dir(self.work_dir))),
            (INSTANCE_VARIABLE, self.mark.to_owned()),
            (
                announce::FILE_VARIABLE,
                text(&announce::file(self.work_dir)),
            ),
            (
                announce::HOOK_VARIABLE,
                text(&announce::hook(self.work_dir)),
            ),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        self.environment.clone().into_iter().chain(own).collect()
    }

    fn jit_config(&self) -> &str {
        self.jit_config.expose_secret().trim()
    }

    pub(super) fn errand(&self) -> Errand {
        Errand {
            program: self.program(),
            directory: self.runner_dir.to_owned(),
            console: unit::console_path(self.work_dir),
            environment: self.environment(),
            secrets: [(JIT_VARIABLE.to_owned(), self.jit_config().to_owned().into())].into(),
        }
    }

    pub(super) fn spawn(&self) -> Result<(Child, pipe::Receiver), StartError> {
        // One pipe for both streams keeps their order.
        let (reader, writer) = io::pipe().map_err(StartError::Pipe)?;
        let second = writer.try_clone().map_err(StartError::Pipe)?;
        let output =
            pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(StartError::Pipe)?;
        let program = self.program();
        let mut command = Command::new(&program);
        command
            .arg("run")
            .current_dir(self.runner_dir)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(second)
            .process_group(0)
            .env_clear()
            .envs(account::environment())
            .envs(self.environment())
            .env(JIT_VARIABLE, self.jit_config());
        let child = command.spawn().map_err(|source| StartError::Spawn {
            path: program,
            source,
        })?;
        Ok((child, output))
    }
}

/// The directory that the job may write to.
pub(crate) fn job_dir(work_dir: &Path) -> PathBuf {
    work_dir.join("job")
}

pub(super) fn perf_dir(work_dir: &Path) -> PathBuf {
    job_dir(work_dir).join("perf")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
