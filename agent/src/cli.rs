//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use thiserror::Error;

use crate::selftest;

/// What `--help` says.
pub(crate) const USAGE: &str = "\
Usage: muster-agent run --config <FILE | ->
       muster-agent supervise --config <FILE | ->
       muster-agent launch-runner [--socket <FILE>]
       muster-agent record-exit [--dir <DIR>]
       muster-agent selftest [--only imds|host] [--json] [--allow-user NAME]... [--deny-user NAME]...
                             [--endpoint URL]... [--runner-dir DIR]
       muster-agent --version

run            Faces the network: enrols this host at a Muster coordinator and reports. Has the runner
               too, unless the configuration names a supervisor's socket.
supervise      Has the runner: root, without a network.
launch-runner  For the runner's unit: becomes the runner that the supervisor describes at its socket
               (/run/muster/launch.sock).
record-exit    For the runner's unit, as ExecStopPost: writes how it ended to the supervisor's directory
               (/run/muster).
selftest       As root, proves who on this host reaches the instance metadata service and who doesn't.

A configuration is one JSON document; with `-` it is read from standard input to its end, so that the
join token is in no file and no argument.

Exit codes: 0 the work is over, 1 failed, 64 usage or configuration.
";

/// The supervisor's directory, unless the command line names another.
const WORK_DIR: &str = "/run/muster";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Face the network, with this configuration.
    Run(ConfigSource),
    /// Have the runner, with this configuration.
    Supervise(ConfigSource),
    /// Become the runner that is described at this socket.
    LaunchRunner(PathBuf),
    /// Record in this directory how the runner's unit ended.
    RecordExit(PathBuf),
    /// Prove that the host is as it should be.
    Selftest(selftest::Order),
    /// Print the version.
    Version,
    /// Print [`USAGE`].
    Help,
}

/// Where the configuration comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    /// Standard input, to its end.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// A command line that can't be understood.
#[derive(Debug, Error)]
pub(crate) enum UsageError {
    /// An option or value that isn't known.
    #[error("{0}")]
    Arguments(#[from] lexopt::Error),
    /// No subcommand.
    #[error("no command; expected `run`, `supervise` or `selftest`")]
    NoCommand,
    /// `run` or `supervise` without `--config`.
    #[error("no --config; expected --config FILE or --config -")]
    NoConfig,
}

/// Reads the arguments, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut word = None;
    let mut path = None;
    while let Some(argument) = parser.next()? {
        match (argument, word.as_deref()) {
            (Long("version") | Short('V'), _) => return Ok(Command::Version),
            (Long("help") | Short('h'), _) => return Ok(Command::Help),
            (Long("config"), Some("run" | "supervise"))
            | (Long("socket"), Some("launch-runner"))
            | (Long("dir"), Some("record-exit")) => path = Some(parser.value()?),
            (Value(value), None) if is_command(&value) => word = Some(value.string()?),
            (Value(value), None) if value == "selftest" || value == "selftest-probe" => {
                let order = selftest::parse(&value.string()?, &mut parser)?;
                return Ok(Command::Selftest(order));
            }
            (other, _) => return Err(other.unexpected().into()),
        }
    }
    let config = || match path.clone() {
        Some(path) if path == "-" => Ok(ConfigSource::Stdin),
        Some(path) => Ok(ConfigSource::File(path.into())),
        None => Err(UsageError::NoConfig),
    };
    let or = |default: &str| PathBuf::from(path.clone().unwrap_or_else(|| default.into()));
    match word.as_deref() {
        Some("run") => Ok(Command::Run(config()?)),
        Some("supervise") => Ok(Command::Supervise(config()?)),
        Some("launch-runner") => Ok(Command::LaunchRunner(or("/run/muster/launch.sock"))),
        Some("record-exit") => Ok(Command::RecordExit(or(WORK_DIR))),
        _ => Err(UsageError::NoCommand),
    }
}

fn is_command(word: &OsString) -> bool {
    ["run", "supervise", "launch-runner", "record-exit"]
        .iter()
        .any(|command| word == command)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Command, ConfigSource, parse};

    fn words(line: &str) -> Vec<std::ffi::OsString> {
        line.split_whitespace().map(Into::into).collect()
    }

    #[rstest]
    #[case("run --config -", Command::Run(ConfigSource::Stdin))]
    #[case("run --config=a.json", Command::Run(ConfigSource::File("a.json".into())))]
    #[case("supervise --config -", Command::Supervise(ConfigSource::Stdin))]
    #[case("launch-runner", Command::LaunchRunner("/run/muster/launch.sock".into()))]
    #[case("launch-runner --socket /s", Command::LaunchRunner("/s".into()))]
    #[case("record-exit --dir /d", Command::RecordExit("/d".into()))]
    #[case("--version", Command::Version)]
    #[case("run --help", Command::Help)]
    fn understood(#[case] line: &str, #[case] command: Command) {
        assert_eq!(parse(words(line)).unwrap(), command);
    }

    #[rstest]
    #[case("", "no command")]
    #[case("run", "no --config")]
    #[case("supervise", "no --config")]
    #[case("--config - run", "--config")]
    #[case("run --config", "missing argument")]
    #[case("run extra --config -", "extra")]
    #[case("launch-runner --config x", "--config")]
    fn refused(#[case] line: &str, #[case] named: &str) {
        let error = parse(words(line)).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
