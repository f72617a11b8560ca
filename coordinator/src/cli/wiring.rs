//! Builds the parts from the checked configuration, and connects them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use muster_core::AccountName;
use secrecy::{ExposeSecret as _, SecretString};

use super::sockets::Addresses;
use crate::backoff::Backoff;
use crate::clock;
use crate::compute::ec2::Given;
use crate::compute::local::{LocalProvider, LocalSettings};
use crate::compute::{Ec2Provider, Provider};
use crate::config::{Config, UrlSource};
use crate::github::{GithubClient, Settings};
use crate::grpc::enrollment::{AwsEnrollment, Describe};
use crate::identity::attest::{AttestAccount, AttestSettings, Attestor};
use crate::identity::ca::Authority;
use crate::identity::serving::{PresentAuthority, Serving};
use crate::secrets::{CaPair, Reader, Secrets};
use crate::store::{Leadership, PostgresSettings, Store, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Name of the database in the data directory.
const DATABASE: &str = "muster.db";
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

/// Opens what is kept: the store, and the certificate authority with the TLS that comes of it.
pub(super) async fn open(
    config: &Config,
    secrets: &Secrets,
    metrics: &Metrics,
) -> anyhow::Result<(Store, Serving)> {
    let data_dir = &config.coordinator.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("coordinator.data_dir: can't make {}", data_dir.display()))?;
    let store = match postgres(config, secrets) {
        Some(settings) => connect(&settings)
            .await
            .context("can't open the store in PostgreSQL")?,
        None => Store::open(&database_file(config))
            .await
            .with_context(|| format!("can't open the store in {}", data_dir.display()))?,
    };
    let authority = load_authority(config, secrets.ca.as_ref())?
        .with_agent_ttl(config.identity.agent_certificate_ttl);
    let names = config.listen.server_names.iter();
    let names = names.map(|name| name.as_str().into()).collect();
    let serving = Serving::new(authority, names, clock::now())
        .context("listen.server_names: no certificate can be made for them")?;
    Ok((store, serving.told_to(metrics.clone())))
}

/// The file of the SQLite database.
pub(super) fn database_file(config: &Config) -> PathBuf {
    config.coordinator.data_dir.join(DATABASE)
}

/// The PostgreSQL database, if there is to be one.
fn postgres(config: &Config, secrets: &Secrets) -> Option<PostgresSettings> {
    let source = config.store.postgres.as_ref()?;
    let url = match &source.url {
        UrlSource::Plain(url) => SecretString::from(url.as_str()),
        UrlSource::Secret(_) => secrets.store_url.clone()?,
    };
    Some(PostgresSettings {
        url,
        ca_file: source.ca_file.clone(),
        insecure: config.coordinator.development,
        limits: source.limits,
    })
}

/// Connects; waits as long as what keeps the database out of reach may pass by itself.
async fn connect(settings: &PostgresSettings) -> Result<Store, StoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let error = match Store::connect(settings).await {
            Err(error) if error.passes() => error,
            outcome => return outcome,
        };
        let wait = backoff.wait();
        tracing::warn!(%error, "the coordinator waits for its database");
        tokio::time::sleep(wait).await;
    }
}

/// Waits until this coordinator leads.
pub(super) async fn lead(config: &Config, store: &Store) -> anyhow::Result<Leadership> {
    // For people only: what makes it unique is the number.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let holder = format!(
        "{}/{}/{:08x}",
        host.trim(),
        std::process::id(),
        rand::random::<u32>()
    );
    store
        .lead(&holder, config.store.lease)
        .await
        .context("can't lead")
}

/// Loads the certificate authority, or makes it in the data directory at the first start.
pub(super) fn load_authority(config: &Config, ca: Option<&CaPair>) -> anyhow::Result<Authority> {
    match ca {
        Some(ca) => Authority::of(ca.certificate.expose_secret(), &ca.key, clock::now()),
        None => Authority::load_or_create(&config.coordinator.data_dir, clock::now()),
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

/// The providers of the accounts that the pools name. What they do by themselves, `tasks` do.
pub(super) async fn providers(
    config: &Config,
    store: &Store,
    authority: &PresentAuthority,
    metrics: &Metrics,
    addresses: &Addresses,
    tasks: &Tasks,
) -> anyhow::Result<HashMap<AccountName, Provider>> {
    let mut providers = HashMap::new();
    for account in &config.ec2 {
        let settings = account.settings.clone();
        let name = settings.name.clone();
        let given = Given {
            metrics: Some(metrics.clone()),
            ..Given::default()
        };
        let provider = Ec2Provider::start(settings, store.clone(), given, tasks)
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
            authority: authority.clone(),
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
    metrics: &Metrics,
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
    // Only in tests there is one, and then all accounts have the same.
    let first = config.ec2.first();
    settings.endpoint = first.and_then(|account| account.settings.endpoint.clone());
    settings.metrics = Some(metrics.clone());
    let attestor = Attestor::new(settings).context("instances of AWS can't prove themselves")?;
    Ok(Some(AwsEnrollment {
        attestor,
        describe: Describe::by(providers.clone()),
    }))
}
