//! The secrets of the coordinator: read from files and from SSM parameters, and again from time to time,
//! so that one that is rotated is used without a restart.

mod parameters;
mod watch;

use secrecy::SecretString;
use thiserror::Error;

use self::parameters::Parameters;
pub use self::watch::{Applied, watch};
use crate::aws::Given;
use crate::config::{Config, SecretSource, UrlSource, read_secret};

/// The secrets. `Debug` shows none of them.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The GitHub app's private key, PEM.
    pub app_key: SecretString,
    /// Secrets that sign webhooks, at least one.
    pub webhook: Vec<SecretString>,
    /// `user:password` for the proxy.
    pub proxy_credentials: Option<SecretString>,
    /// The certificate authority; none if it is made in the data directory.
    pub ca: Option<CaPair>,
    /// The URL of the database; none if it is a file, or holds no password.
    pub store_url: Option<SecretString>,
}

/// A certificate authority, PEM.
#[derive(Clone, Debug)]
pub struct CaPair {
    /// Its certificate, which is no secret.
    pub certificate: SecretString,
    /// Its private key.
    pub key: SecretString,
}

/// A secret can't be read. Names the key of the configuration and the source, never the content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {source_name} {problem}")]
pub struct SecretError {
    /// The key in the configuration.
    pub key: &'static str,
    /// The file or the parameter.
    pub source_name: String,
    /// What is wrong.
    pub problem: String,
    /// Whether it may be good a moment later, with nothing changed by anybody.
    pub passes: bool,
}

/// Reads the secrets that a configuration names.
#[derive(Debug)]
pub struct Reader {
    wanted: Vec<Wanted>,
    parameters: Option<Parameters>,
}

/// One secret that is wanted.
#[derive(Clone, Debug)]
struct Wanted {
    what: What,
    key: &'static str,
    source: SecretSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    AppKey,
    Webhook,
    ProxyCredentials,
    CaCertificate,
    CaKey,
    StoreUrl,
}

/// What could be read.
#[derive(Default)]
struct Got {
    app_key: Option<SecretString>,
    webhook: Vec<Option<SecretString>>,
    proxy_credentials: Option<SecretString>,
    ca: Option<CaPair>,
    store_url: Option<SecretString>,
}

impl Reader {
    /// A reader; reads nothing and calls nobody yet.
    pub async fn new(config: &Config, given: Given) -> Self {
        Self {
            wanted: wanted(config),
            parameters: match &config.secrets.region {
                Some(region) => {
                    let endpoint = config.secrets.endpoint.as_ref();
                    Some(Parameters::new(region, endpoint, given).await)
                }
                None => None,
            },
        }
    }

    /// Reads all secrets.
    ///
    /// # Errors
    /// When any can't be read, is empty or is too large: then all that are wrong.
    pub async fn read(&self) -> Result<Secrets, Vec<SecretError>> {
        let (got, errors) = self.read_each().await;
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Secrets {
            app_key: got.app_key.ok_or_else(Vec::new)?,
            webhook: got.webhook.into_iter().flatten().collect(),
            proxy_credentials: got.proxy_credentials,
            ca: got.ca,
            store_url: got.store_url,
        })
    }

    /// Reads all secrets again: one that can't be read is as it is at present, whatever the others are. Of a
    /// certificate and its key both are read, or neither counts.
    pub async fn read_again(&self, present: &Secrets) -> (Secrets, Vec<SecretError>) {
        let (got, errors) = self.read_each().await;
        let present = present.clone();
        let mut webhook = present.webhook;
        // Both are in the order of the configuration, which is read once only.
        for (present, new) in webhook.iter_mut().zip(got.webhook) {
            if let Some(new) = new {
                *present = new;
            }
        }
        let secrets = Secrets {
            app_key: got.app_key.unwrap_or(present.app_key),
            webhook,
            proxy_credentials: got.proxy_credentials.or(present.proxy_credentials),
            ca: got.ca.or(present.ca),
            store_url: got.store_url.or(present.store_url),
        };
        (secrets, errors)
    }

    /// Reads each secret; tells what is wrong with those that can't be read.
    async fn read_each(&self) -> (Got, Vec<SecretError>) {
        let (mut got, mut errors) = (Got::default(), Vec::new());
        let (mut certificate, mut key) = (None, None);
        for (what, secret) in self.read_some(|_| true).await {
            let secret = secret.map_err(|error| errors.push(error)).ok();
            match what {
                What::AppKey => got.app_key = secret,
                What::Webhook => got.webhook.push(secret),
                What::ProxyCredentials => got.proxy_credentials = secret,
                What::CaCertificate => certificate = secret,
                What::CaKey => key = secret,
                What::StoreUrl => got.store_url = secret,
            }
        }
        got.ca = certificate
            .zip(key)
            .map(|(certificate, key)| CaPair { certificate, key });
        (got, errors)
    }

    /// Reads the certificate authority alone; none if it is made in the data directory.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn read_ca(&self) -> Result<Option<CaPair>, Vec<SecretError>> {
        let (mut certificate, mut key, mut errors) = (None, None, Vec::new());
        let of_ca = |what| matches!(what, What::CaCertificate | What::CaKey);
        for (what, secret) in self.read_some(of_ca).await {
            match (what, secret) {
                (What::CaCertificate, Ok(secret)) => certificate = Some(secret),
                (_, Ok(secret)) => key = Some(secret),
                (_, Err(error)) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(certificate
                .zip(key)
                .map(|(certificate, key)| CaPair { certificate, key }))
        } else {
            Err(errors)
        }
    }

    async fn read_some(
        &self,
        which: impl Fn(What) -> bool,
    ) -> Vec<(What, Result<SecretString, SecretError>)> {
        let wanted: Vec<&Wanted> = self.wanted.iter().filter(|one| which(one.what)).collect();
        let names = wanted.iter().filter_map(|one| match &one.source {
            SecretSource::Parameter(name) => Some(name.as_str()),
            SecretSource::File(_) => None,
        });
        let parameters = match &self.parameters {
            Some(parameters) => parameters.get(names.collect()).await,
            None => parameters::Got::default(),
        };
        let mut all = Vec::new();
        for one in wanted {
            let secret = match &one.source {
                SecretSource::File(path) => {
                    let path = path.clone();
                    let read = tokio::task::spawn_blocking(move || read_secret(&path)).await;
                    read.unwrap_or_else(|error| Err(error.to_string()))
                        .map_err(|problem| (problem, false))
                }
                SecretSource::Parameter(name) => parameters.one(name),
            };
            let secret = secret.map_err(|(problem, passes)| SecretError {
                key: one.key,
                source_name: one.source.to_string(),
                problem,
                passes,
            });
            all.push((one.what, secret));
        }
        all
    }
}

fn wanted(config: &Config) -> Vec<Wanted> {
    let github = &config.github;
    let mut wanted = vec![Wanted {
        what: What::AppKey,
        key: "github.private_key",
        source: github.private_key.clone(),
    }];
    let one = |what, key, source: &SecretSource| Wanted {
        what,
        key,
        source: source.clone(),
    };
    let webhooks = github.webhook_secrets.iter();
    wanted.extend(webhooks.map(|source| one(What::Webhook, "github.webhook_secret", source)));
    if let Some(path) = &github.proxy_credentials_file {
        let source = SecretSource::File(path.clone());
        wanted.push(one(
            What::ProxyCredentials,
            "github.proxy_credentials",
            &source,
        ));
    }
    if let Some(ca) = &config.identity.ca {
        wanted.push(one(
            What::CaCertificate,
            "identity.ca_certificate",
            &ca.certificate,
        ));
        wanted.push(one(What::CaKey, "identity.ca_key", &ca.key));
    }
    if let Some(postgres) = &config.store.postgres
        && let UrlSource::Secret(source) = &postgres.url
    {
        wanted.push(one(What::StoreUrl, "store.url", source));
    }
    wanted
}
