//! The command line: what `main` hands over to. Exit codes: 0 ok, 1 failed, 64 wrong command line or
//! configuration, 130 and 143 a copy that SIGINT or SIGTERM stopped.

mod backup;
mod check_config;
mod ending;
mod healthcheck;
mod operator_cert;
mod reach;
mod run;
mod sockets;
mod wiring;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

pub use self::backup::{BackupArguments, RestoreArguments};
pub use self::check_config::check_config;
pub use self::healthcheck::HealthcheckArguments;
use crate::aws::Given;
use crate::config::{Config, verify_files};
use crate::identity::spiffe::TrustDomain;
use crate::secrets::{Reader, SecretError};
use crate::store::{BackupError, StoreError};

/// Exit code of a wrong command line or configuration, `EX_USAGE` of sysexits.h.
pub const USAGE: u8 = 64;
/// How long threads that hang in a system call may hold up the end.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// What `issue-operator-cert` is told.
#[derive(Debug, clap::Args)]
pub struct OperatorCertArguments {
    /// The configuration.
    #[arg(long, env = "MUSTER_CONFIG", default_value = "muster.toml")]
    pub config: PathBuf,
    /// The operator's name, `[a-z0-9-]`; records of actions show it.
    #[arg(long)]
    pub name: String,
    /// Directory for operator.crt, operator.key and ca.crt.
    #[arg(long)]
    pub out: PathBuf,
    /// Hours until it expires; the configured time if not given.
    #[arg(long)]
    pub hours: Option<u8>,
    /// Replace files that exist.
    #[arg(long)]
    pub force: bool,
}

/// Where a coordinator keeps what it must not forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// A file of its own.
    Sqlite,
    /// A database that several coordinators share.
    Postgres,
}

impl StoreKind {
    /// What a configuration has.
    fn of(config: &Config) -> Self {
        match config.store.postgres {
            Some(_) => Self::Postgres,
            None => Self::Sqlite,
        }
    }

    /// Why this configuration is refused where such a store is expected; none if it is not.
    fn refuses(self, config: &Config) -> Option<&'static str> {
        match (self, Self::of(config)) {
            (Self::Postgres, Self::Sqlite) => Some(
                "PostgreSQL is expected (--store), and [store] names none: \
                 url, url_file or url_parameter is missing",
            ),
            (Self::Sqlite, Self::Postgres) => {
                Some("SQLite is expected (--store), and [store] names a PostgreSQL database")
            }
            _ => None,
        }
    }
}

/// Runs the service with a configuration file; refuses one with another store than is expected.
#[must_use]
pub fn run(path: &Path, expected: Option<StoreKind>) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => return fail(USAGE, &errors.to_string()),
    };
    if let Some(refused) = expected.and_then(|expected| expected.refuses(&config)) {
        return fail(USAGE, &format!("{}: {refused}", path.display()));
    }
    if let Err(errors) = verify_files(&config) {
        let lines: Vec<_> = errors
            .iter()
            .map(|error| format!("{}: {error}", path.display()))
            .collect();
        return fail(USAGE, &lines.join("\n"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("can't start: {error}")),
    };
    let outcome = runtime.block_on(run::run(config));
    runtime.shutdown_timeout(LAST_MOMENTS);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("{error:#}")),
    }
}

/// Issues an operator's certificate, and prints where it is and how to use it.
#[must_use]
pub fn issue_operator_cert(arguments: &OperatorCertArguments) -> ExitCode {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(errors) => return fail(USAGE, &errors.to_string()),
    };
    match issue(&config, arguments) {
        Ok(text) => {
            // A closed terminal doesn't change the outcome.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &format!("{error:#}")),
    }
}

/// Asks the coordinator that runs with a configuration whether it lives; says nothing if it does.
#[must_use]
pub fn healthcheck(arguments: &HealthcheckArguments) -> ExitCode {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(errors) => return fail(USAGE, &errors.to_string()),
    };
    let within = Duration::from_secs(arguments.timeout);
    match healthcheck::ask(config.listen.web, arguments.path(), within) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ healthcheck::Unhealthy::NoPort) => fail(USAGE, &error.to_string()),
        Err(error) => fail(1, &error.to_string()),
    }
}

/// Copies the store to a file, also while the service runs.
#[must_use]
pub fn backup(arguments: &BackupArguments) -> ExitCode {
    on_file(&arguments.config, |config| {
        backup::make(config, &arguments.to, arguments.force)
    })
}

/// Puts a copy in the place of the store; the service must not run.
#[must_use]
pub fn restore(arguments: &RestoreArguments) -> ExitCode {
    on_file(&arguments.config, |config| {
        backup::put_back(config, &arguments.from)
    })
}

/// Does something with a store that is in a file, and prints what came of it.
fn on_file(path: &Path, work: impl FnOnce(&Config) -> Result<String, BackupError>) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => return fail(USAGE, &errors.to_string()),
    };
    if config.store.postgres.is_some() {
        return fail(USAGE, backup::OF_POSTGRES);
    }
    match work(&config) {
        Ok(text) => {
            // A closed terminal doesn't change the outcome.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(code_of(&error), &error.to_string()),
    }
}

/// As shells have it for one that a signal ended: 128 and its number.
fn code_of(error: &BackupError) -> u8 {
    match error {
        BackupError::Interrupted(signal) => signal.saturating_add(128),
        _ => 1,
    }
}

/// Runs one thing to its end.
fn alone<T>(work: impl Future<Output = Result<T, BackupError>>) -> Result<T, BackupError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|error| BackupError::Store(StoreError::Unavailable(error.into())))?
        .block_on(work)
}

/// Errors, one on each line.
fn lines(errors: &[SecretError]) -> String {
    let lines = errors.iter().map(ToString::to_string);
    lines.collect::<Vec<_>>().join("\n")
}

fn issue(config: &Config, arguments: &OperatorCertArguments) -> anyhow::Result<String> {
    let ttl = match arguments.hours {
        Some(hours) => Duration::from_secs(u64::from(hours) * 3600),
        None => config.identity.operator_certificate_ttl,
    };
    let listen = &config.listen;
    let order = operator_cert::Order {
        name: &arguments.name,
        trust_domain: &TrustDomain::new(&config.coordinator.trust_domain)?,
        ttl,
        out: &arguments.out,
        force: arguments.force,
        address: &format!("{}:{}", listen.advertise_host, listen.operators.port()),
    };
    let ca = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { Reader::new(config, Given::default()).await.read_ca().await })
        .map_err(|errors| anyhow::anyhow!(lines(&errors)))?;
    let authority = wiring::load_authority(config, ca.as_ref())?;
    let receipt = operator_cert::issue(&authority, &order, Timestamp::now())
        .context("no certificate was issued")?;
    Ok(format!(
        "{} is valid until {:.0}. Try:\n{}",
        receipt.id, receipt.not_after, receipt.grpcurl
    ))
}

fn fail(code: u8, text: &str) -> ExitCode {
    // Where nobody reads, the code still tells.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
