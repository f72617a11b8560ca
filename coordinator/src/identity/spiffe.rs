//! Names of agents and operators: SPIFFE ids, as URI in their certificates.
//!
//! They are built from values that this program validated, never from tags or other foreign text,
//! and nothing is normalised: a text that isn't exactly such a name is refused. (CVE-2021-27099 is
//! what happens otherwise: <https://github.com/advisories/GHSA-q7gm-mjrg-44h9>.)

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Most bytes in one segment of the path.
const MAX_SEGMENT: usize = 64;
/// Most bytes in a trust domain (SPIFFE-ID specification, 2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// A text is no name of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpiffeError {
    /// A part has characters or a length that no part may have.
    #[error("{part} {text:?} is not {expected}")]
    Part {
        /// Which part.
        part: &'static str,
        /// The part, shortened.
        text: String,
        /// What it must be.
        expected: &'static str,
    },
    /// It has not the form of a name.
    #[error(
        "{0:?} is neither spiffe://<trust domain>/pool/<pool>/instance/<account>/<region>/<i-…> nor spiffe://<trust domain>/operator/<name>"
    )]
    Form(String),
}

/// The domain that an authority vouches for, such as `muster.internal`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Checks a trust domain: labels of `[a-z0-9-]`, separated by dots.
    ///
    /// # Errors
    /// When it is not one.
    pub fn new(text: &str) -> Result<Self, SpiffeError> {
        let well_formed = text.len() <= MAX_TRUST_DOMAIN && text.split('.').all(is_segment);
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(part_error(
                "trust domain",
                text,
                "labels of [a-z0-9-], separated by dots",
            ))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        Self::new(text)
    }
}

/// Name of the agent on one instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentId {
    trust_domain: TrustDomain,
    pool: String,
    account: String,
    region: String,
    instance: String,
}

impl AgentId {
    /// Builds a name.
    ///
    /// # Errors
    /// When a part has characters outside of `[a-z0-9-]`, is empty or too long, or when the instance
    /// id is not `i-` with 8 to 17 lower-case hexadecimal digits.
    pub fn new(
        trust_domain: &TrustDomain,
        pool: &str,
        account: &str,
        region: &str,
        instance: &str,
    ) -> Result<Self, SpiffeError> {
        if !is_instance_id(instance) {
            return Err(part_error(
                "instance id",
                instance,
                "i- and 8 to 17 hexadecimal digits",
            ));
        }
        Ok(Self {
            trust_domain: trust_domain.clone(),
            pool: segment("pool", pool)?,
            account: segment("account", account)?,
            region: segment("region", region)?,
            instance: instance.to_owned(),
        })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Name of the pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// Name of the account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The region; `local` for the local provider.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Id of the instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trust_domain,
            pool,
            account,
            region,
            instance,
        } = self;
        write!(
            f,
            "spiffe://{trust_domain}/pool/{pool}/instance/{account}/{region}/{instance}"
        )
    }
}

/// Name of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperatorId {
    trust_domain: TrustDomain,
    name: String,
}

impl OperatorId {
    /// Builds a name.
    ///
    /// # Errors
    /// When the name has characters outside of `[a-z0-9-]`, is empty or too long.
    pub fn new(trust_domain: &TrustDomain, name: &str) -> Result<Self, SpiffeError> {
        Ok(Self {
            trust_domain: trust_domain.clone(),
            name: segment("operator name", name)?,
        })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The operator's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/operator/{}", self.trust_domain, self.name)
    }
}

/// Whom a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpiffeId {
    /// The agent on one instance.
    Agent(AgentId),
    /// An operator.
    Operator(OperatorId),
}

impl SpiffeId {
    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Agent(id) => id.trust_domain(),
            Self::Operator(id) => id.trust_domain(),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => id.fmt(f),
            Self::Operator(id) => id.fmt(f),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let form = || SpiffeError::Form(shortened(text));
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [domain, "pool", pool, "instance", account, region, instance] => {
                let domain = TrustDomain::new(domain)?;
                AgentId::new(&domain, pool, account, region, instance).map(Self::Agent)
            }
            [domain, "operator", name] => {
                let domain = TrustDomain::new(domain)?;
                OperatorId::new(&domain, name).map(Self::Operator)
            }
            _ => Err(form()),
        }
    }
}

/// Whether a text is an instance id, as EC2 gives them and the local provider imitates them.
#[must_use]
pub fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|digits| {
        (8..=17).contains(&digits.len())
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_SEGMENT
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn segment(part: &'static str, text: &str) -> Result<String, SpiffeError> {
    if is_segment(text) {
        Ok(text.to_owned())
    } else {
        Err(part_error(part, text, "1 to 64 characters of [a-z0-9-]"))
    }
}

fn part_error(part: &'static str, text: &str, expected: &'static str) -> SpiffeError {
    SpiffeError::Part {
        part,
        text: shortened(text),
        expected,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests;
