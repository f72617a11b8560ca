//! `muster-coordinator`: the service, and the commands around it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use muster_coordinator::cli;

/// Ephemeral GitHub Actions runners on EC2: the coordinator.
#[derive(Debug, Parser)]
#[command(name = "muster-coordinator", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the service until SIGTERM or SIGINT.
    Run {
        /// The configuration.
        #[arg(long, env = "MUSTER_CONFIG", default_value = "muster.toml")]
        config: PathBuf,
        /// Refuses a configuration with another store than this. Coordinators that should share a database and
        /// don't would all lead, and end each other's hosts.
        #[arg(long, env = "MUSTER_STORE")]
        store: Option<cli::StoreKind>,
    },
    /// Checks a configuration and the files that it names: all errors at once, with line and column.
    CheckConfig {
        /// The configuration.
        #[arg(env = "MUSTER_CONFIG", default_value = "muster.toml")]
        config: PathBuf,
    },
    /// Asks the coordinator that runs here whether it lives: exit code 0 if it does, 1 if not.
    Healthcheck(cli::HealthcheckArguments),
    /// Copies the store to a file, also while the service runs.
    Backup(cli::BackupArguments),
    /// Puts a copy in the place of the store, and keeps what was there; the service must not run.
    Restore(cli::RestoreArguments),
    /// Issues a client certificate for an operator, at most 12 hours valid.
    IssueOperatorCert(cli::OperatorCertArguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too; a closed terminal doesn't change the outcome.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(cli::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match arguments.command {
        Command::Run { config, store } => cli::run(&config, store),
        Command::CheckConfig { config } => cli::check_config(&config),
        Command::Healthcheck(arguments) => cli::healthcheck(&arguments),
        Command::Backup(arguments) => cli::backup(&arguments),
        Command::Restore(arguments) => cli::restore(&arguments),
        Command::IssueOperatorCert(arguments) => cli::issue_operator_cert(&arguments),
    }
}
