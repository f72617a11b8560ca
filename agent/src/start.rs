//! From a command line to an enrolled agent.

use std::io::Read as _;

use anyhow::Context as _;
use jiff::Timestamp;
use nix::sys::stat::{Mode, umask};
use secrecy::zeroize::Zeroizing;

use crate::agent::Agent;
use crate::cli::ConfigSource;
use crate::config::{self, Config};
use crate::instance::{self, Claim};
use crate::signals::Signals;
use crate::{enroll, supervise};

/// Reads and checks the configuration. The text it came in is wiped.
pub(crate) fn load(source: &ConfigSource) -> anyhow::Result<Config> {
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

/// Runs the agent, unless this launch has one or has had one. `started_at` is when the process began.
pub(crate) fn run(config: Config, started_at: Timestamp) -> anyhow::Result<()> {
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
