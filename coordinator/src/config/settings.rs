//! The checked values. Whoever holds a [`Config`] need not check anything in it again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use muster_core::{AccountName, FleetSpec};
use tracing::level_filters::LevelFilter;
use url::Url;

use super::StoreSettings;
use crate::compute::ec2::Ec2Settings;
use crate::github::survey::SurveySettings;

/// The whole configuration. It holds paths of secrets, never the secrets.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[coordinator]`.
    pub coordinator: CoordinatorSettings,
    /// `[listen]`.
    pub listen: ListenSettings,
    /// `[github]`.
    pub github: GithubSettings,
    /// `[identity]`.
    pub identity: IdentitySettings,
    /// `[store]`.
    pub store: StoreSettings,
    /// `[secrets]`.
    pub secrets: SecretsSettings,
    /// `[local]`; there if a pool launches in the account `local`.
    pub local: Option<LocalSettings>,
    /// The accounts that are AWS's, each with its pools.
    pub ec2: Vec<Ec2Account>,
    /// `[[pool]]` and `[accounts.*]`: at least one pool, each with an account that exists.
    pub fleet: FleetSpec,
    /// `[telemetry]`.
    pub telemetry: TelemetrySettings,
}

impl Config {
    /// How often the instances of an account are listed.
    #[must_use]
    pub fn sweep_interval(&self, account: &AccountName) -> Duration {
        let ec2 = self.ec2.iter().find(|one| one.settings.name == *account);
        let local = self.local.as_ref();
        ec2.map(|one| one.sweep_interval)
            .or_else(|| local.map(|local| local.sweep_interval))
            .unwrap_or(Duration::from_secs(60))
    }
}

/// The coordinator itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorSettings {
    /// What agents are told they speak to; proofs of identity are made out to it.
    pub name: String,
    /// Host part of the SPIFFE ids in certificates.
    pub trust_domain: String,
    /// Where the database is, and the certificate authority if none is given.
    pub data_dir: PathBuf,
    /// How often agents are to report, 100 ms to 5 min.
    pub heartbeat_interval: Duration,
    /// Allows what is of use in tests only, such as certificates that live for seconds.
    pub development: bool,
}

/// What to listen on. Port 0 takes any free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    /// Webhooks, health, metrics: plain HTTP.
    pub web: SocketAddr,
    /// Enrolment: TLS.
    pub enroll: SocketAddr,
    /// Agents: mutual TLS.
    pub agents: SocketAddr,
    /// Operators: mutual TLS.
    pub operators: SocketAddr,
    /// DNS names and IP addresses of the server certificate, at least one. Agents verify the first.
    pub server_names: Vec<String>,
    /// Host that agents are told to connect to.
    pub advertise_host: String,
    /// Where the bound addresses are written, as JSON, once all listen.
    pub ports_file: Option<PathBuf>,
}

/// GitHub and the app that speaks to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubSettings {
    /// Base of the REST API; a path such as `/api/v3` belongs to it.
    pub api_url: Url,
    /// The app's number or client id: the issuer of its tokens.
    pub app_id: String,
    /// The app's private key, PEM.
    pub private_key: SecretSource,
    /// Secrets that sign webhooks, at least one; several while they are rotated.
    pub webhook_secrets: Vec<SecretSource>,
    /// Roots to trust beside the usual ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy; carries no credentials.
    pub proxy: Option<Url>,
    /// `user:password` for the proxy; only with a proxy.
    pub proxy_credentials_file: Option<PathBuf>,
    /// How often failed deliveries are looked for; none is never.
    pub redeliver_interval: Option<Duration>,
    /// How repositories are looked at for jobs that no webhook told of; none is never.
    pub survey: Option<SurveySettings>,
    /// Most registrations of runners in any one minute.
    pub registrations_per_minute: u32,
}

/// Certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySettings {
    /// The certificate authority; if none, one is made in the data directory.
    pub ca: Option<CaSource>,
    /// How long an agent's certificate lives, at most 1 h.
    pub agent_certificate_ttl: Duration,
    /// How long an operator's certificate lives, at most 12 h.
    pub operator_certificate_ttl: Duration,
}

/// Where a certificate authority is, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSource {
    /// The certificate.
    pub certificate: SecretSource,
    /// Its private key.
    pub key: SecretSource,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, alone.
    File(PathBuf),
    /// In a parameter of SSM's Parameter Store.
    Parameter(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Parameter(name) => write!(f, "parameter {name}"),
        }
    }
}

/// How secrets are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsSettings {
    /// Region of the parameters; there if any secret is in one.
    pub region: Option<String>,
    /// In place of SSM's own endpoint.
    pub endpoint: Option<Url>,
    /// How often all secrets are read again, 100 ms to 1 h.
    pub reload_interval: Duration,
}

/// The provider that runs agents as processes of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// The agent.
    pub agent_binary: PathBuf,
    /// An unpacked runner, copied for each instance.
    pub runner_dir: PathBuf,
    /// Where the copies go.
    pub instances_dir: PathBuf,
    /// URL of a metadata service for agents; `{instance_id}` stands for the instance's id.
    pub metadata_endpoint: Option<String>,
    /// How often processes are looked over.
    pub sweep_interval: Duration,
    /// Variables for the runner's process beside its own.
    pub environment: BTreeMap<String, String>,
}

/// An account of AWS, in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Account {
    /// What its provider is told.
    pub settings: Ec2Settings,
    /// How often its instances are listed.
    pub sweep_interval: Duration,
    /// Role of the instance profile that instances may prove themselves with; none admits only the
    /// instance identity role.
    pub instance_role: Option<String>,
    /// Whether an instance must enrol from its own private address.
    pub check_private_ip: bool,
}

/// Logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// What is logged at the start; operators can change it.
    pub log_level: LevelFilter,
    /// Whether metrics are written to standard output in CloudWatch's embedded format.
    pub emf: bool,
    /// Their namespace.
    pub emf_namespace: String,
    /// How often they are written.
    pub emf_interval: Duration,
}
