//! The agent's key and certificate. The key never leaves memory: neither for a disk nor for another host.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use muster_proto::certificate::BACKDATED;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::Instant;
use x509_parser::parse_x509_certificate;

use crate::boot::since_boot;
use crate::steady::Steady;
use crate::tls::{self, ClientAuth, TlsError};

/// A difference between the host's clock and the coordinator's that is worth a word.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(60);

/// A key that waits for its certificate.
pub(crate) struct Request {
    key: KeyPair,
    csr: Vec<u8>,
}

/// A certificate that can be shown, and whom to trust.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Settings that prove this identity.
    pub(crate) tls: Arc<ClientConfig>,
    /// The authorities in them.
    pub(crate) anchors: Vec<CertificateDer<'static>>,
    /// When to ask for the next certificate: at half of this one's life.
    pub(crate) renew_at: Instant,
    /// The time that the coordinator's certificates are judged by.
    pub(crate) steady: Steady,
    parts: Arc<Parts>,
}

/// What an identity is made of.
#[derive(Debug)]
struct Parts {
    /// PKCS#8, base64.
    key: SecretString,
    certificate: CertificateDer<'static>,
    /// When it was accepted, by the clock of this boot.
    accepted: Duration,
}

/// An identity as it is kept for the next process of the same agent.
#[derive(Serialize, Deserialize)]
struct Kept {
    instance_id: String,
    enrolled_at: Timestamp,
    accepted: Duration,
    steady: Steady,
    key: String,
    certificate: String,
    anchors: Vec<String>,
}

/// No identity could be made.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// The key or the certificate request.
    #[error("make a key and a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// The certificate doesn't parse, isn't for our key, or an authority doesn't parse.
    #[error("use the certificate: {0}")]
    Certificate(#[from] TlsError),
    /// It was given no life.
    #[error("the certificate's life is over before it began, or can't be read")]
    Expired,
    /// What was kept for this process is not an identity.
    #[error("use the identity that an earlier process left: it is not readable")]
    Kept,
}

impl Request {
    /// A new P-256 key.
    pub(crate) fn new() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // Only the public key counts; the coordinator writes the names.
        let csr = CertificateParams::default().serialize_request(&key)?;
        let csr = csr.der().to_vec();
        Ok(Self { key, csr })
    }

    /// The certificate request, DER.
    pub(crate) fn csr_der(&self) -> Vec<u8> {
        self.csr.clone()
    }

    /// Joins the key and the certificate that was given for it. Without `anchors` the present ones stay.
    pub(crate) fn accept(
        &self,
        certificate: Vec<u8>,
        anchors: Vec<Vec<u8>>,
        present: &[CertificateDer<'static>],
        steady: Steady,
    ) -> Result<Identity, IdentityError> {
        let anchors = if anchors.is_empty() {
            present.to_vec()
        } else {
            anchors.into_iter().map(CertificateDer::from).collect()
        };
        let key = Zeroizing::new(self.key.serialize_der());
        let identity = Identity::new(&key, certificate.into(), anchors, steady, since_boot())?;
        warn_of_the_clock(&identity.parts.certificate);
        Ok(identity)
    }
}

impl Identity {
    fn new(
        key: &[u8],
        certificate: CertificateDer<'static>,
        anchors: Vec<CertificateDer<'static>>,
        steady: Steady,
        accepted: Duration,
    ) -> Result<Self, IdentityError> {
        let auth = ClientAuth {
            certificate: certificate.clone(),
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec())),
        };
        let tls = tls::client_config(&anchors, Some(auth), Arc::new(steady))?;
        // The host's clock has no say in it: it may be wrong, and a job may set it.
        let life = Life::of(&certificate).ok_or(IdentityError::Expired)?.lasts;
        let lived = since_boot().saturating_sub(accepted);
        Ok(Self {
            tls,
            anchors,
            renew_at: Instant::now() + (life / 2).saturating_sub(lived),
            steady,
            parts: Arc::new(Parts {
                key: BASE64_STANDARD.encode(key).into(),
                certificate,
                accepted,
            }),
        })
    }

    /// This identity as text, key included: for [`crate::systemd::DescriptorStore`] and nothing else.
    pub(crate) fn kept(
        &self,
        instance_id: &str,
        enrolled_at: Timestamp,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        let encode = |bytes: &CertificateDer<'_>| BASE64_STANDARD.encode(bytes);
        let kept = Kept {
            instance_id: instance_id.to_owned(),
            enrolled_at,
            accepted: self.parts.accepted,
            steady: self.steady,
            key: self.parts.key.expose_secret().to_owned(),
            certificate: encode(&self.parts.certificate),
            anchors: self.anchors.iter().map(encode).collect(),
        };
        Ok(Zeroizing::new(serde_json::to_vec(&kept)?))
    }

    /// The identity in a text that [`Identity::kept`] gave, with the instance id and the time of enrolment. It may have
    /// expired meanwhile, as that of a process that lives on may: to enrol anew would have its host ended, job and all.
    pub(crate) fn restore(text: &[u8]) -> Result<(Self, String, Timestamp), IdentityError> {
        // The parser's error would show text of it.
        let kept: Kept = serde_json::from_slice(text).map_err(|_| IdentityError::Kept)?;
        let key = Zeroizing::new(kept.key);
        let decode = |text: &str| {
            BASE64_STANDARD
                .decode(text)
                .map_err(|_| IdentityError::Kept)
        };
        let anchors: Result<Vec<_>, _> = kept
            .anchors
            .iter()
            .map(|text| decode(text).map(CertificateDer::from))
            .collect();
        let identity = Self::new(
            &Zeroizing::new(decode(&key)?),
            decode(&kept.certificate)?.into(),
            anchors?,
            kept.steady,
            kept.accepted,
        )?;
        Ok((identity, kept.instance_id, kept.enrolled_at))
    }
}

/// What a certificate says of its life.
struct Life {
    issued: Timestamp,
    lasts: Duration,
}

impl Life {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let validity = parsed.validity();
        let begins = Timestamp::from_second(validity.not_before.timestamp()).ok()?;
        let ends = Timestamp::from_second(validity.not_after.timestamp()).ok()?;
        let issued = begins.checked_add(BACKDATED).ok()?;
        let lasts = Duration::try_from(ends.duration_since(issued)).ok()?;
        (!lasts.is_zero()).then_some(Self { issued, lasts })
    }
}

/// Says so if a certificate that was issued now is of another time.
fn warn_of_the_clock(certificate: &CertificateDer<'_>) {
    let Some(life) = Life::of(certificate) else {
        return;
    };
    let ahead = Timestamp::now().duration_since(life.issued);
    if ahead.abs() > CLOCKS_DIFFER {
        tracing::warn!(
            seconds = ahead.as_secs(),
            "this host's clock is ahead of the coordinator's, or behind it if negative; its sessions don't go by it"
        );
    }
}

#[cfg(test)]
mod tests;
