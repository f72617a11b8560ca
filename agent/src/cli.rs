//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use thiserror::Error;

use crate::selftest;

/// What `--help` says.
pub(crate) const USAGE: &str = "\
Usage: muster-agent run --config <FILE | ->
       muster-agent selftest [--only imds|host] [--json] [--allow-user NAME]... [--deny-user NAME]...
                             [--endpoint URL]... [--runner-dir DIR]
       muster-agent --version

Runs one job on this host for a Muster coordinator. The configuration is one JSON document; with `-`
it is read from standard input to its end, so that the join token is in no file and no argument.
`selftest`, as root, proves who on this host reaches the instance metadata service and who doesn't.

Exit codes: 0 the work is over, 1 failed, 64 usage or configuration.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run, with this configuration.
    Run(ConfigSource),
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
    #[error("no command; expected `run` or `selftest`")]
    NoCommand,
    /// `run` without `--config`.
    #[error("no --config; expected --config FILE or --config -")]
    NoConfig,
}

/// Reads the arguments, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut run = false;
    let mut config = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("version") | Short('V') => return Ok(Command::Version),
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("config") if run => config = Some(parser.value()?),
            Value(word) if !run && word == "run" => run = true,
            Value(word) if !run && (word == "selftest" || word == "selftest-probe") => {
                let order = selftest::parse(&word.string()?, &mut parser)?;
                return Ok(Command::Selftest(order));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if !run {
        return Err(UsageError::NoCommand);
    }
    let config = config.ok_or(UsageError::NoConfig)?;
    Ok(Command::Run(if config == "-" {
        ConfigSource::Stdin
    } else {
        ConfigSource::File(config.into())
    }))
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
    #[case("--version", Command::Version)]
    #[case("run --help", Command::Help)]
    fn understood(#[case] line: &str, #[case] command: Command) {
        assert_eq!(parse(words(line)).unwrap(), command);
    }

    #[rstest]
    #[case("", "no command")]
    #[case("run", "no --config")]
    #[case("--config - run", "--config")]
    #[case("run --config", "missing argument")]
    #[case("run extra --config -", "extra")]
    fn refused(#[case] line: &str, #[case] named: &str) {
        let error = parse(words(line)).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
