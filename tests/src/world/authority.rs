//! A certificate authority as an operator brings one.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// An authority in its two PEM texts.
#[derive(Clone, Debug)]
pub struct CaPair {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl CaPair {
    /// One with this name, whose time has begun and doesn't end.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self {
            certificate: params.self_signed(&key).context("an authority")?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Its certificate and another's, in one text.
    #[must_use]
    pub fn and(&self, other: &Self) -> String {
        format!("{}{}", self.certificate, other.certificate)
    }
}
