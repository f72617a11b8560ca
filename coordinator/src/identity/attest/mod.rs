//! Proof by STS: which instance signed a `GetCallerIdentity` request that we put together ourselves.
//!
//! The agent sends what it alone knows, and nothing of that decides where the request goes or what it
//! asks ("reconstruct, don't validate": <https://words.filippo.io/dispatches/reconstruct-vs-validate/>).
//! What is believed is STS's answer alone: the account, and the instance id, which is the name of the
//! session of a role that only EC2 gives out.

mod answer;
mod arn;
mod client;
mod evidence;
mod request;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use muster_core::{AccountName, InstanceId};
use muster_proto::sts;
use thiserror::Error;
use url::Url;

pub use self::arn::Role;
pub use self::evidence::Evidence;

use self::answer::CallerIdentity;
use self::client::{CallError, Sts};
use self::evidence::Checked;
use crate::telemetry::Metrics;

/// Longest time for one question to STS, and longest wait for its turn.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How old an instance may be when it enrols.
const LAUNCHED_WITHIN: Duration = Duration::from_secs(30 * 60);

/// Which instances are believed, and how STS is reached.
#[derive(Clone, Debug)]
pub struct AttestSettings {
    /// The accounts that instances are launched in.
    pub accounts: Vec<AttestAccount>,
    /// Where to connect in place of STS: for tests. The host that was signed stays in the request.
    pub endpoint: Option<Url>,
    /// HTTP proxy. The environment's is not looked at.
    pub proxy: Option<Url>,
    /// Longest time for one question to STS, and longest wait for its turn.
    pub time_limit: Duration,
    /// Where questions to STS are counted.
    pub metrics: Option<Metrics>,
    /// How old an instance may be when it enrols, by EC2's launch time.
    pub launched_within: Duration,
}

/// One entry of the configuration's accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestAccount {
    /// Its name in the configuration and the ledger.
    pub name: AccountName,
    /// AWS's id of the account: 12 digits.
    pub account_id: String,
    /// The region that it launches in.
    pub region: String,
    /// The role of the instance profile that is believed beside the instance identity role. Whoever may
    /// assume it can be any instance, so its trust policy must admit EC2 only.
    pub instance_profile_role: Option<String>,
    /// Whether the private address of an instance must be the one that it connects from. Only without
    /// a load balancer in between, or with one that preserves addresses.
    pub check_peer_ip: bool,
}

impl AttestSettings {
    /// Settings for these accounts: STS itself, no proxy, and the usual limits.
    #[must_use]
    pub fn new(accounts: Vec<AttestAccount>) -> Self {
        Self {
            accounts,
            endpoint: None,
            proxy: None,
            time_limit: TIME_LIMIT,
            metrics: None,
            launched_within: LAUNCHED_WITHIN,
        }
    }
}

/// The settings can't be used.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A part of an account's entry.
    #[error("account {account}: {field} {text:?} is not {expected}")]
    Account {
        /// Name of the entry.
        account: AccountName,
        /// Which part.
        field: &'static str,
        /// The part.
        text: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The client of STS can't be made: the proxy, or the system's authorities.
    #[error("the HTTP client for STS can't be made: {0}")]
    Http(#[from] reqwest::Error),
}

/// An instance has not proved who it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttestError {
    /// A field is not what the protocol says. Its value isn't shown.
    #[error("aws_sts.{field}: expected {expected}")]
    Malformed {
        /// Name of the field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The proof is not believed. The reason is for the log: who tries to forge one learns nothing.
    #[error("not believed: {0}")]
    Refused(String),
    /// STS can't say at present.
    #[error("STS can't say at present: {0}")]
    Unavailable(String),
}

impl AttestError {
    /// Whether the same instance may succeed a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<CallError> for AttestError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(reason) => Self::Refused(reason),
            CallError::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

/// What an instance sent, and what it must have been made for.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// The fields that are the instance's own.
    pub evidence: Evidence<'a>,
    /// The nonce of the challenge on the same stream.
    pub nonce: &'a [u8],
    /// The name of this coordinator.
    pub audience: &'a str,
    /// The certificate request that came with it.
    pub csr_der: &'a [u8],
}

/// An instance whose identity STS vouches for. Whether we launched it is the ledger's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested<'a> {
    /// The instance.
    pub instance: InstanceId,
    /// The role that it signed as.
    pub role: Role,
    /// The entries that it may belong to, at least one: same account, same region, and this role is
    /// believed there.
    pub accounts: Vec<&'a AttestAccount>,
}

/// Asks STS who signed.
#[derive(Debug)]
pub struct Attestor {
    settings: AttestSettings,
    sts: Sts,
}

impl Attestor {
    /// Asks nobody yet, so it can be made while STS is out of reach.
    ///
    /// # Errors
    /// When an account's entry or the proxy can't be used.
    pub fn new(settings: AttestSettings) -> Result<Self, SetupError> {
        for account in &settings.accounts {
            check_account(account)?;
        }
        let sts = Sts::new(&settings)?;
        Ok(Self { settings, sts })
    }

    /// How old an instance may be when it enrols.
    #[must_use]
    pub fn launched_within(&self) -> Duration {
        self.settings.launched_within
    }

    /// The instance that made a proof, once STS has said so.
    ///
    /// # Errors
    /// When a field is malformed, the proof is not believed, or STS can't say.
    pub async fn attest(
        &self,
        proof: &Proof<'_>,
        now: Timestamp,
    ) -> Result<Attested<'_>, AttestError> {
        let checked = Checked::new(&proof.evidence, &self.settings.accounts, now)?;
        let hash = digest::digest(&digest::SHA256, proof.csr_der);
        let challenge = sts::challenge(proof.audience, proof.nonce, hash.as_ref());
        let request = request::rebuild(&checked, &challenge)
            .map_err(|_| AttestError::Refused("the request can't be put together".to_owned()))?;
        let body = self.sts.ask(request).await?;
        let identity = answer::parse(&body).map_err(AttestError::Refused)?;
        self.believe(&identity, checked.region())
    }

    /// Reads the instance out of STS's answer. Nothing here comes from the instance but the region, which
    /// was one of ours before.
    fn believe(
        &self,
        identity: &CallerIdentity,
        region: &str,
    ) -> Result<Attested<'_>, AttestError> {
        let caller = arn::read(identity, region).map_err(AttestError::Refused)?;
        let accounts: Vec<_> = self
            .settings
            .accounts
            .iter()
            .filter(|entry| entry.account_id == identity.account && entry.region == region)
            .filter(|entry| match &caller.role {
                Role::InstanceIdentity => true,
                Role::InstanceProfile(role) => entry.instance_profile_role.as_ref() == Some(role),
            })
            .collect();
        if accounts.is_empty() {
            return Err(AttestError::Refused(format!(
                "{} in {region} is of no account, or of no role, that is configured",
                identity.arn
            )));
        }
        Ok(Attested {
            instance: caller.instance,
            role: caller.role,
            accounts,
        })
    }
}

fn check_account(account: &AttestAccount) -> Result<(), SetupError> {
    let refuse = |field, text: &str, expected| SetupError::Account {
        account: account.name.clone(),
        field,
        text: text.to_owned(),
        expected,
    };
    if !arn::is_account_id(&account.account_id) {
        return Err(refuse("account_id", &account.account_id, "12 digits"));
    }
    if !evidence::is_region(&account.region) {
        let expected = "a region, such as eu-west-1";
        return Err(refuse("region", &account.region, expected));
    }
    match &account.instance_profile_role {
        Some(role) if !arn::is_role_name(role) => Err(refuse(
            "instance_profile_role",
            role,
            "the name of an IAM role, without its path",
        )),
        _ => Ok(()),
    }
}
