//! From a command line to a running agent: what each command puts together.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use nix::sys::stat::{Mode as FileMode, umask};
use nix::unistd::{Gid, Uid, User};
use secrecy::zeroize::Zeroizing;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::boot::since_init;
use crate::cli::ConfigSource;
use crate::config::{
    self, Attestation, HostConfig, Mode, NetworkConfig, RunConfig, SuperviseConfig,
};
use crate::enroll::{self, Enrolled};
use crate::front::Front;
use crate::identity::Identity;
use crate::instance::{self, Claim};
use crate::local::{self, socket};
use crate::signals::Signals;
use crate::supervise::exit_record;
use crate::supervise::supervisor::{Ended, Supervisor};
use crate::{supervise, systemd};

/// Connections of the other half that may wait. Each makes the one before worthless.
const CONNECTIONS: usize = 2;
/// Name of the supervisor's socket in its directory.
const SOCKET: &str = "supervisor.sock";
/// Name of the file there that survives the supervisor.
const STATE: &str = "supervisor.state";
/// How long a host that is being shut down is held up so that the end of its runner can be told.
const TOLD_LIMIT: Duration = Duration::from_secs(20);

/// Reads a configuration, and has it checked by `parse`. The text it came in is wiped.
pub(crate) fn load<T, E>(
    source: &ConfigSource,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> anyhow::Result<T>
where
    anyhow::Error: From<E>,
{
    let mut text = Zeroizing::new(String::new());
    match source {
        ConfigSource::Stdin => std::io::stdin()
            .read_to_string(&mut text)
            .context("failed to read the configuration from standard input")?,
        ConfigSource::File(path) => std::fs::File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| format!("failed to read the configuration {}", path.display()))?,
    };
    Ok(parse(&text)?)
}

/// The configuration of `run`.
pub(crate) fn load_run(source: &ConfigSource) -> anyhow::Result<RunConfig> {
    load(source, config::parse_run)
}

/// The configuration of `supervise`.
pub(crate) fn load_supervise(source: &ConfigSource) -> anyhow::Result<SuperviseConfig> {
    load(source, config::parse_supervise)
}

/// Runs the agent. `started_at` is when the process began.
pub(crate) fn run(config: RunConfig, started_at: Timestamp) -> anyhow::Result<()> {
    let span = tracing::info_span!("agent", launch = config.network().launch.as_deref());
    let _entered = span.enter();
    match config {
        RunConfig::Alone { network, host } => alone(network, *host, started_at),
        RunConfig::Front {
            network,
            supervisor,
        } => block_on(front(network, supervisor, started_at)),
    }
}

/// One process for all, unless this launch has one or has had one.
fn alone(network: NetworkConfig, host: HostConfig, started_at: Timestamp) -> anyhow::Result<()> {
    let _lock = match instance::claim(&host.work_dir).context("failed to start")? {
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
    prepare_for_children()?;
    block_on(async {
        let mut signals = Signals::install().context("failed to install signal handlers")?;
        let mut notifier = systemd::Notifier::new();
        let Some(enrolled) = enroll(&network, &mut signals, &mut notifier).await? else {
            return Ok(());
        };
        let mark = match &host.mode {
            Mode::Child { mark: Some(mark) } => mark.clone(),
            _ => enrolled.instance_id.clone(),
        };
        let age = Duration::try_from(Timestamp::now().duration_since(started_at));
        let (to_front, to_supervisor) = local::pair();
        let (fronts, supervisors) = (one(to_front)?, one(to_supervisor)?);
        let mut supervisor = Supervisor::new(
            host,
            mark,
            age.unwrap_or_default(),
            signals,
            fronts.receiver,
        );
        if let Attestation::JoinToken(token) = &network.attestation {
            supervisor.mask(token.clone());
        }
        let front = Front::new(network, enrolled, None, started_at, supervisors.receiver);
        // Each sender lives as long as the half that might wait for another connection.
        tokio::join!(
            async {
                let _open = fronts.sender;
                Box::pin(supervisor.run()).await;
            },
            async {
                drop(supervisors.sender);
                Box::pin(front.run()).await;
            },
        );
        Ok(())
    })
}

/// A channel with one connection in it.
fn one<T>(connection: T) -> anyhow::Result<Waiting<T>> {
    let (sender, receiver) = mpsc::channel(CONNECTIONS);
    sender
        .try_send(connection)
        .map_err(|_| anyhow::anyhow!("failed to join the halves"))?;
    Ok(Waiting { sender, receiver })
}

struct Waiting<T> {
    sender: mpsc::Sender<T>,
    receiver: mpsc::Receiver<T>,
}

/// The network's half, beside a supervisor.
async fn front(
    network: NetworkConfig,
    supervisor: PathBuf,
    started_at: Timestamp,
) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("failed to install signal handlers")?;
    // Ready from here on: enrolment may take minutes, and systemd shall not end it.
    let mut notifier = systemd::Notifier::new();
    notifier.ready();
    let enrolled = match restored()? {
        Some(enrolled) => enrolled,
        None => match enroll(&network, &mut signals, &mut notifier).await? {
            Some(enrolled) => enrolled,
            None => return Ok(()),
        },
    };
    let (sender, supervisors) = mpsc::channel(CONNECTIONS);
    let mut tasks = JoinSet::new();
    // The supervisor is root, or as this process where all is one user's (tests).
    let users = vec![Uid::from_raw(0).as_raw(), Uid::current().as_raw()];
    tasks.spawn(socket::dial(supervisor, users, sender));
    let front = Front::new(network, enrolled, Some(signals), started_at, supervisors);
    Box::pin(front.run()).await;
    Ok(())
}

/// The identity that an earlier process of this agent left. Once there was one, it is that or none, even if it has
/// expired: a second enrolment has its host ended, with the job that may run on it.
fn restored() -> anyhow::Result<Option<Enrolled>> {
    let Some(text) = systemd::stored().context("failed to read what an earlier process left")?
    else {
        return Ok(None);
    };
    let (identity, instance_id, at) =
        Identity::restore(&text).context("failed to take up an earlier process's identity")?;
    tracing::info!(instance = instance_id, "going on where another left off");
    Ok(Some(Enrolled {
        identity,
        instance_id,
        at,
    }))
}

/// Enrols. None if a signal came first.
async fn enroll(
    network: &NetworkConfig,
    signals: &mut Signals,
    notifier: &mut systemd::Notifier,
) -> anyhow::Result<Option<Enrolled>> {
    notifier.status("enrolling".into());
    let enrolled = tokio::select! {
        enrolled = enroll::enroll(network) => enrolled.context("failed to enrol")?,
        signal = signals.recv() => {
            tracing::info!(signal, "ended before it enrolled");
            return Ok(None);
        }
        never = notifier.keep_alive() => match never {},
    };
    tracing::info!(instance = enrolled.instance_id, "enrolled");
    Ok(Some(enrolled))
}

/// The host's half. Switches the host off in the end, if the runner has a unit: such a host has no other
/// purpose.
pub(crate) fn supervise(config: SuperviseConfig) -> anyhow::Result<()> {
    let SuperviseConfig { host, agent_uid } = config;
    let work_dir = host.work_dir.clone();
    let _lock = instance::hold(&work_dir).context("failed to start")?;
    prepare_for_children()?;
    block_on(async {
        let signals = Signals::install().context("failed to install signal handlers")?;
        let in_unit = matches!(host.mode, Mode::Unit(_));
        let mark = match &host.mode {
            Mode::Child { mark: Some(mark) } => mark.clone(),
            _ => "local".to_owned(),
        };
        let (sender, fronts) = mpsc::channel(CONNECTIONS);
        let listener = socket::listen(&work_dir.join(SOCKET), group_of(agent_uid))
            .context("failed to start")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(socket::serve(listener, vec![0, agent_uid], sender));
        let age = if in_unit {
            since_init()
        } else {
            Duration::ZERO
        };
        let mut supervisor = Supervisor::new(host, mark, age, signals, fronts);
        if in_unit {
            supervisor
                .resume(work_dir.join(STATE))
                .context("failed to read what an earlier supervisor left")?;
        }
        let ended = Box::pin(supervisor.run()).await;
        // The last word may still be on its way to the front.
        socket::drain(tasks).await;
        if let Ended::Over(mut signals) = ended
            && in_unit
        {
            tokio::select! {
                () = systemd::power_off() => {}
                // It works: this service is being stopped already.
                _ = signals.recv() => {}
            }
        }
        Ok(())
    })
}

fn group_of(uid: u32) -> Gid {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(Gid::current, |user| user.gid)
}

/// Becomes the runner. Returns only if it can't.
pub(crate) fn launch_runner(socket: &Path) -> anyhow::Result<()> {
    match supervise::launch::launch(socket)? {}
}

/// Writes how the runner's unit ended, by what systemd says in the environment.
///
/// If that is because the host is being shut down, it stays: until the unit is down, systemd stops neither the
/// supervisor nor the front nor the network. The supervisor kills it with all that is left of the unit, once the end
/// is told.
pub(crate) fn record_exit(dir: &Path) -> anyhow::Result<()> {
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    block_on(async {
        let shuts_down = systemd::shuts_down().await;
        exit_record::write(dir, &said("EXIT_CODE"), &said("EXIT_STATUS"), shuts_down)
            .with_context(|| format!("failed to write to {}", dir.display()))?;
        if shuts_down {
            sleep(TOLD_LIMIT).await;
        }
        Ok(())
    })
}

fn prepare_for_children() -> anyhow::Result<()> {
    // The runner makes its files with it, and expects this one.
    umask(FileMode::from_bits_truncate(0o022));
    supervise::descendants::adopt_orphans().context("failed to become a subreaper")
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(work)
}
