//! The client of GitHub's REST API.
//!
//! It never repeats a call by itself, but once after a refused token: whether and when to try again
//! is for the caller, who knows what is idempotent. Calls that a limit would refuse don't go out.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use muster_core::Scope;
use secrecy::SecretString;
use url::Url;

use super::app_auth::{AppKey, Installations};
use super::errors::{self, GithubError, Reply, SetupError};
use super::limits::{Bucket, Caller, Gate, PerMinute, Standing};
use super::runners::Groups;
use super::transport::{Call, Transport};
use crate::telemetry::{Allowance, GithubLimit, Metrics};

/// Registrations in any one minute. GitHub allows 900 points a minute and counts a POST as 5.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#calculating-points-for-the-secondary-rate-limit>
const MINTS_PER_MINUTE: usize = 180;

/// What the client needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base of the API: `https://api.github.com`, `https://HOST/api/v3` of a GitHub Enterprise
    /// Server, or `https://api.SUBDOMAIN.ghe.com`.
    pub api_url: Url,
    /// Id of the GitHub App, or its client id.
    pub app_id: String,
    /// Its RSA private key, PKCS#1 or PKCS#8.
    pub private_key_pem: SecretString,
    /// Certificates that are trusted beside the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// HTTP proxy. The environment's is not looked at.
    pub proxy: Option<Url>,
    /// `user:password` for the proxy.
    pub proxy_credentials: Option<SecretString>,
    /// `User-Agent`, which GitHub demands.
    pub user_agent: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a whole answer, the wait for a free connection included.
    pub total_timeout: Duration,
    /// Where requests are counted, by the class of their answer.
    pub metrics: Option<Metrics>,
    /// Registrations in any one minute.
    pub mints_per_minute: usize,
    /// Where questions go instead of over the network.
    #[cfg(test)]
    pub(crate) simulated: Option<super::transport::simulated::Way>,
}

impl Settings {
    /// Settings without a proxy and additional certificates, and with the usual time-outs: 5 s to
    /// connect, 15 s in all.
    #[must_use]
    pub fn new(api_url: Url, app_id: String, private_key_pem: SecretString) -> Self {
        Self {
            api_url,
            app_id,
            private_key_pem,
            ca_pem: None,
            proxy: None,
            proxy_credentials: None,
            user_agent: concat!("muster-coordinator/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(15),
            metrics: None,
            mints_per_minute: MINTS_PER_MINUTE,
            #[cfg(test)]
            simulated: None,
        }
    }
}

/// A client of one GitHub App. Cheap to clone; clones share tokens and limits.
#[derive(Clone, Debug)]
pub struct GithubClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    issuer: String,
    /// Replaced whole when it is rotated; held for a clone only.
    key: RwLock<Arc<AppKey>>,
    installations: Installations,
    groups: Groups,
    gate: Gate,
    mints: PerMinute,
}

impl GithubClient {
    /// Makes a client. Nothing is asked of GitHub yet.
    ///
    /// # Errors
    /// When the key, the certificates, the proxy or the base of the API can't be used.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let transport = Transport::new(&settings)?;
        let key = AppKey::new(settings.app_id.clone(), &settings.private_key_pem)?;
        Ok(Self {
            inner: Arc::new(Inner {
                transport,
                issuer: settings.app_id,
                key: RwLock::new(Arc::new(key)),
                installations: Installations::new(),
                groups: Groups::new(),
                gate: Gate::default(),
                mints: PerMinute::new(settings.mints_per_minute),
            }),
        })
    }

    /// Signs with another key of the same app from now on. Tokens that GitHub gave stay good.
    ///
    /// # Errors
    /// When it is no key; then the present one stays in use.
    pub fn replace_key(&self, private_key_pem: &SecretString) -> Result<(), SetupError> {
        let key = Arc::new(AppKey::new(self.inner.issuer.clone(), private_key_pem)?);
        *self
            .inner
            .key
            .write()
            .unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    pub(super) fn installations(&self) -> &Installations {
        &self.inner.installations
    }

    pub(super) fn groups(&self) -> &Groups {
        &self.inner.groups
    }

    /// Makes a call as the app.
    pub(super) async fn as_app(&self, call: &Call<'_>) -> Result<Reply, GithubError> {
        let key = Arc::clone(
            &self
                .inner
                .key
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let token = key.token()?;
        let reply = self.send(Caller::App, Bucket::Core, call, &token).await?;
        errors::check(reply)
    }

    /// Makes a call as the installation that a scope belongs to; once more with a new token if the
    /// token was refused.
    pub(super) async fn as_installation(
        &self,
        scope: &Scope,
        bucket: Bucket,
        call: &Call<'_>,
    ) -> Result<Reply, GithubError> {
        let installation = self.installation(scope).await?;
        let caller = Caller::Installation(installation);
        let token = self.token(scope, installation).await?;
        let mut reply = self.send(caller, bucket, call, &token).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            self.forget_token(installation, &token).await;
            let token = self.token(scope, installation).await?;
            reply = self.send(caller, bucket, call, &token).await?;
        }
        errors::check(reply)
    }

    /// Takes one registration from the budget, if the installation may register at all now.
    pub(super) async fn budget_mint(&self, scope: &Scope) -> Result<(), GithubError> {
        let caller = Caller::Installation(self.installation(scope).await?);
        self.inner.gate.check(caller, Bucket::Registration)?;
        Ok(self.inner.mints.take()?)
    }

    /// Where the limit of most calls stands for the installation that a scope belongs to; none before the
    /// first call, and where there is no limit.
    pub(super) async fn core_standing(
        &self,
        scope: &Scope,
    ) -> Result<Option<Standing>, GithubError> {
        let caller = Caller::Installation(self.installation(scope).await?);
        Ok(self.inner.gate.standing(caller, Bucket::Core))
    }

    async fn send(
        &self,
        caller: Caller,
        bucket: Bucket,
        call: &Call<'_>,
        token: &SecretString,
    ) -> Result<Reply, GithubError> {
        self.inner.gate.check(caller, bucket)?;
        let reply = self.inner.transport.send(call, token).await?;
        if let Some(standing) = reply.standing() {
            self.inner.gate.note(caller, bucket, standing);
            self.tell(caller, bucket, standing);
        }
        if let Some(hold) = errors::hold(&reply, Timestamp::now()) {
            tracing::warn!(
                ?caller,
                ?bucket,
                seconds = hold.after.as_secs(),
                reason = hold.reason,
                "calls to GitHub are held back"
            );
            self.inner.gate.close(caller, bucket, &hold);
        }
        Ok(reply)
    }

    /// Has the figures show where a limit stands.
    fn tell(&self, caller: Caller, bucket: Bucket, standing: Standing) {
        let Some(metrics) = self.inner.transport.metrics() else {
            return;
        };
        let limit = match bucket {
            Bucket::Core => GithubLimit::Core,
            Bucket::Registration => GithubLimit::Registration,
        };
        let of = match caller {
            Caller::App => None,
            Caller::Installation(id) => Some(id),
        };
        let allowance = Allowance {
            of: standing.limit,
            left: standing.remaining,
            until: standing.resets_at,
        };
        metrics.github_limit(limit, of, allowance);
    }
}
