//! Authorities for tests.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use secrecy::{ExposeSecret as _, SecretString};

use super::{AUTHORITY_TTL, Authority, BACKDATED, IsCa, later, new_authority, params};

/// An authority in its two texts.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: SecretString,
}

impl Pair {
    /// One that begins now.
    pub(crate) fn new() -> Self {
        Self::at(Timestamp::now())
    }

    /// One that begins at this time, for ten years.
    pub(crate) fn at(now: Timestamp) -> Self {
        let (certificate, key) = new_authority(now).unwrap();
        Self { certificate, key }
    }

    /// A certificate of its own key that is valid for another while.
    pub(crate) fn again(&self, from: Timestamp, ttl: Duration) -> String {
        self.certified(from, ttl, |_| {})
    }

    /// A certificate of its own key that is no authority's.
    pub(crate) fn leaf(&self) -> String {
        self.certified(Timestamp::now(), AUTHORITY_TTL, |params| {
            params.is_ca = IsCa::ExplicitNoCa;
        })
    }

    fn certified(
        &self,
        from: Timestamp,
        ttl: Duration,
        change: fn(&mut CertificateParams),
    ) -> String {
        let key = KeyPair::from_pem(self.key.expose_secret()).unwrap();
        let mut params = params("Muster authority", (from, BACKDATED), later(from, ttl)).unwrap();
        params.is_ca = IsCa::Ca(super::BasicConstraints::Constrained(0));
        change(&mut params);
        params.self_signed(&key).unwrap().pem()
    }

    /// The authority that has this key, and trusts these beside its own.
    pub(crate) fn with(&self, others: &[&Self]) -> Authority {
        Authority::of(&self.bundle(others), &self.key, Timestamp::now()).unwrap()
    }

    /// Its certificate after those of others.
    pub(crate) fn bundle(&self, others: &[&Self]) -> String {
        let others = others.iter().map(|one| one.certificate.as_str());
        others.chain([self.certificate.as_str()]).collect()
    }
}
