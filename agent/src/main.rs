//! The Muster agent: proves which instance it is, becomes one GitHub Actions runner, reports, ends.

mod agent;
mod backoff;
mod cli;
mod config;
mod enroll;
mod identity;
mod imds;
mod instance;
mod sample;
mod session;
mod signals;
mod supervise;
mod tls;
mod wire;

use std::io::{Read as _, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use nix::sys::stat::{Mode, umask};
use secrecy::zeroize::Zeroizing;

use crate::agent::Agent;
use crate::cli::{Command, ConfigSource};
use crate::config::Config;
use crate::instance::Claim;
use crate::signals::Signals;

/// Usage or configuration, as in sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let started_at = Timestamp::now();
    let source = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(source)) => source,
        Ok(Command::Version) => return print(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Help) => return print(cli::USAGE),
        Err(error) => return unusable(&format!("{error}\n\n{}", cli::USAGE)),
    };
    let config = match load(&source) {
        Ok(config) => config,
        Err(error) => return unusable(&format!("{error:#}\n")),
    };
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    match run(config, started_at) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the agent failed");
            ExitCode::FAILURE
        }
    }
}

fn load(source: &ConfigSource) -> anyhow::Result<Config> {
    let mut text = Zeroizing::new(String::new());
    match source {
        ConfigSource::Stdin => std::io::stdin()
            .read_to_string(&mut text)
            .context("failed to read the configuration from standard input")?,
        ConfigSource::File(path) => std::fs::File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| format!("failed to read the configuration {}", path.display()))?,
    };
    Ok(config::parse(&text)?)
}

fn run(config: Config, started_at: Timestamp) -> anyhow::Result<()> {
    let span = tracing::info_span!("agent", launch = config.launch);
    let _entered = span.enter();
    let _lock = match instance::claim(&config.work_dir).context("failed to start")? {
        Claim::Ours(lock) => lock,
        Claim::AlreadyRunning => {
            tracing::info!("already running");
            return Ok(());
        }
        Claim::RanBefore => {
            tracing::info!("this launch has run before");
            return Ok(());
        }
    };
    // The runner makes its files with it, and expects this one.
    umask(Mode::from_bits_truncate(0o022));
    supervise::descendants::adopt_orphans().context("failed to become a subreaper")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(serve(config, started_at))
}

async fn serve(config: Config, started_at: Timestamp) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("failed to install signal handlers")?;
    let enrolled = tokio::select! {
        enrolled = enroll::enroll(&config) => enrolled.context("failed to enrol")?,
        signal = signals.recv() => {
            tracing::info!(signal, "ended before it enrolled");
            return Ok(());
        }
    };
    tracing::info!(instance = enrolled.instance_id, "enrolled");
    Box::pin(Agent::new(config, enrolled, signals, started_at).run()).await;
    Ok(())
}

fn print(text: &str) -> ExitCode {
    write(&mut std::io::stdout(), text, ExitCode::SUCCESS)
}

fn unusable(text: &str) -> ExitCode {
    write(&mut std::io::stderr(), text, ExitCode::from(EXIT_USAGE))
}

/// If nobody reads it, nobody misses it.
fn write(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    to.write_all(text.as_bytes())
        .map_or(ExitCode::FAILURE, |()| code)
}
