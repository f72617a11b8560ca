//! Builds the parts from the checked configuration, and connects them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use muster_core::AccountName;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::compute::ec2::Given;
use crate::compute::local::{LocalProvider, LocalSettings};
use crate::compute::{Ec2Provider, Provider};
use crate::config::Config;
use crate::github::{GithubClient, Settings};
use crate::grpc::enrollment::{AwsEnrollment, Describe};
use crate::identity::attest::{AttestAccount, AttestSettings, Attestor};
use crate::identity::ca::Authority;
use crate::identity::files;
use crate::secrets::{CaPair, Reader, Secrets};
use crate::store::Store;
use crate::telemetry::Metrics;

/// Name of the database in the data directory.
const DATABASE: &str = "muster.db";
/// Connections that may wait to be accepted; the kernel allows 4,096 at most (`net.core.somaxconn`). When all
/// agents come back at once, those beyond it lose a second to a repeated SYN, or their whole try.
const BACKLOG: u32 = 4_096;

/// The four sockets, bound.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) web: TcpListener,
    pub(super) enroll: TcpListener,
    pub(super) agents: TcpListener,
    pub(super) operators: TcpListener,
}

/// Where the four sockets are; written for those who start us with port 0.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Addresses {
    pub(super) web: SocketAddr,
    pub(super) enroll: SocketAddr,
    pub(super) agents: SocketAddr,
    pub(super) operators: SocketAddr,
}

impl Sockets {
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let listen = &config.listen;
        let bind = |name: &'static str, address: SocketAddr| {
            listen_on(address).with_context(|| format!("listen.{name}: can't listen on {address}"))
        };
        Ok(Self {
            web: bind("web", listen.web)?,
            enroll: bind("enroll", listen.enroll)?,
            agents: bind("agents", listen.agents)?,
            operators: bind("operators", listen.operators)?,
        })
    }

    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            web: self.web.local_addr()?,
            enroll: self.enroll.local_addr()?,
            agents: self.agents.local_addr()?,
            operators: self.operators.local_addr()?,
        })
    }
}

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A start after an end finds the port taken by closed connections otherwise.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Writes the addresses; whoever reads the file finds all of it.
pub(super) fn write_addresses(path: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let text = serde_json::to_vec(addresses)?;
    files::write_atomically(path, &text, files::PUBLIC)
        .with_context(|| format!("listen.ports_file: can't write {}", path.display()))
}

/// Reads the secrets; waits as long as what keeps them out of reach may pass by itself.
pub(super) async fn secrets(reader: &Reader) -> anyhow::Result<Secrets> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        let errors = match reader.read().await {
            Ok(secrets) => return Ok(secrets),
            Err(errors) => errors,
        };
        let lasting: Vec<String> = errors
            .iter()
            .filter(|error| !error.passes)
            .map(ToString::to_string)
            .collect();
        if !lasting.is_empty() {
            anyhow::bail!(lasting.join("\n"));
        }
        let wait = backoff.wait();
        for error in errors {
            tracing::warn!(%error, "the coordinator waits for a secret");
        }
        tokio::time::sleep(wait).await;
    }
}

/// Opens what is kept on disk: the store and the certificate authority.
pub(super) async fn open(
    config: &Config,
    ca: Option<&CaPair>,
) -> anyhow::Result<(Store, Arc<Authority>)> {
    let data_dir = &config.coordinator.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("coordinator.data_dir: can't make {}", data_dir.display()))?;
    let store = Store::open(&data_dir.join(DATABASE))
        .await
        .with_context(|| format!("can't open the store in {}", data_dir.display()))?;
    let authority =
        load_authority(config, ca)?.with_agent_ttl(config.identity.agent_certificate_ttl);
    Ok((store, Arc::new(authority)))
}

/// Loads the certificate authority, or makes it in the data directory at the first start.
pub(super) fn load_authority(config: &Config, ca: Option<&CaPair>) -> anyhow::Result<Authority> {
    match ca {
        Some(ca) => Authority::of(ca.certificate.expose_secret(), &ca.key),
        None => Authority::load_or_create(&config.coordinator.data_dir, Timestamp::now()),
    }
    .context("no certificate authority")
}

/// The client of GitHub.
pub(super) fn github(
    config: &Config,
    secrets: &Secrets,
    metrics: &Metrics,
) -> anyhow::Result<GithubClient> {
    let github = &config.github;
    let mut settings = Settings::new(
        github.api_url.clone(),
        github.app_id.clone(),
        secrets.app_key.clone(),
    );
    settings.metrics = Some(metrics.clone());
    settings.mints_per_minute = usize::try_from(github.registrations_per_minute)?;
    settings.proxy.clone_from(&github.proxy);
    settings
        .proxy_credentials
        .clone_from(&secrets.proxy_credentials);
    if let Some(path) = &github.ca_file {
        let pem = std::fs::read(path)
            .with_context(|| format!("github.ca_file: can't read {}", path.display()))?;
        settings.ca_pem = Some(pem);
    }
    GithubClient::new(settings).context("the GitHub client can't be made")
}

/// The providers of the accounts that the pools name. What they do by themselves, `tasks` do until `stop`.
pub(super) async fn providers(
    config: &Config,
    store: &Store,
    authority: &Authority,
    addresses: &Addresses,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<HashMap<AccountName, Provider>> {
    let mut providers = HashMap::new();
    for account in &config.ec2 {
        let settings = account.settings.clone();
        let name = settings.name.clone();
        let provider = Ec2Provider::start(settings, store.clone(), Given::default(), tasks, stop)
            .await
            .with_context(|| format!("accounts.{name}: its launches can't be read"))?;
        providers.insert(name, Provider::Ec2(provider));
    }
    if let Some(local) = &config.local {
        let host = &config.listen.advertise_host;
        // An IPv6 address stands in brackets in a URL.
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let settings = LocalSettings {
            agent_binary: local.agent_binary.clone(),
            runner_dir: local.runner_dir.clone(),
            instances_dir: local.instances_dir.clone(),
            enroll_url: format!("https://{host}:{}", addresses.enroll.port()),
            agents_url: format!("https://{host}:{}", addresses.agents.port()),
            server_name: config
                .listen
                .server_names
                .first()
                .cloned()
                .unwrap_or_default(),
            trust_anchors_pem: authority.certificate_pem().to_owned(),
            metadata_endpoint: local.metadata_endpoint.clone(),
            environment: local.environment.clone(),
        };
        let provider = LocalProvider::new(settings, store.clone());
        providers.insert(AccountName::new("local"), Provider::Local(provider));
    }
    Ok(providers)
}

/// How instances of AWS prove themselves; none if nothing is launched there.
pub(super) fn aws_enrollment(
    config: &Config,
    providers: &HashMap<AccountName, Provider>,
) -> anyhow::Result<Option<AwsEnrollment>> {
    if config.ec2.is_empty() {
        return Ok(None);
    }
    let accounts = config.ec2.iter().map(|account| AttestAccount {
        name: account.settings.name.clone(),
        account_id: account.settings.account_id.clone(),
        region: account.settings.region.clone(),
        instance_profile_role: account.instance_role.clone(),
        check_peer_ip: account.check_private_ip,
    });
    let mut settings = AttestSettings::new(accounts.collect());
    // For tests, all of AWS is in one place.
    settings.endpoint = config
        .ec2
        .iter()
        .find_map(|account| account.settings.endpoint.clone());
    let attestor = Attestor::new(settings).context("instances of AWS can't prove themselves")?;
    Ok(Some(AwsEnrollment {
        attestor,
        describe: Describe::by(providers.clone()),
    }))
}
