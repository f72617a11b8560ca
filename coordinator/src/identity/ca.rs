//! The certificate authority: one P-256 key that signs for the coordinator, agents and operators.
//!
//! While one authority replaces another there are several certificates; the one of the key issues, and all are trusted.

mod bundle;
#[cfg(test)]
pub(crate) mod fixtures;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use muster_proto::certificate::BACKDATED;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use self::bundle::Bundle;
pub use self::bundle::Unusable;
use super::csr::RequestedKey;
use super::files;
use super::spiffe::{AgentId, OperatorId, SpiffeId};

/// Life of an agent's certificate. It is renewed at half of this.
pub const AGENT_TTL: Duration = Duration::from_secs(60 * 60);
/// Longest life of an operator's certificate.
pub const MAX_OPERATOR_TTL: Duration = Duration::from_secs(12 * 60 * 60);
/// Life of the coordinator's own certificate. It makes a new one at each start, and at half of this.
pub const SERVER_TTL: Duration = Duration::from_secs(90 * 24 * 60 * 60);

const AUTHORITY_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How much earlier the coordinator's own certificate begins than it is issued: a host with a wrong clock must find it good also when the
/// coordinator has just started.
const SERVER_BACKDATE: Duration = Duration::from_secs(24 * 60 * 60);
/// File names of an authority that this program made.
const CERTIFICATE_FILE: &str = "ca.crt";
const KEY_FILE: &str = "ca.key";

/// The authority can't be had, or can't sign.
#[derive(Debug, Error)]
pub enum CaError {
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Certificate and key don't make an authority.
    #[error("{path} is no usable certificate authority: {problem}")]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        problem: Unusable,
    },
    /// The certificates and the key of the configuration don't make an authority.
    #[error("identity.ca_certificate and ca_key are no usable certificate authority: {0}")]
    Given(Unusable),
    /// The operating system gives no random bytes.
    #[error("no random bytes")]
    Random,
    /// A certificate can't be made.
    #[error("certificate can't be made: {0}")]
    Sign(#[from] rcgen::Error),
    /// A certificate would not be valid at all.
    #[error("the certificate authority expires at {0}")]
    Expired(Timestamp),
}

/// What a client of the coordinator may call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// A name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl From<&str> for ServerName {
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

/// The coordinator's certificate and key.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The certificate. The authority's is not part of the chain, as every client has it.
    pub certificate: CertificateDer<'static>,
    /// Its private key; shows nothing in `Debug`.
    pub key: PrivateKeyDer<'static>,
    /// When it expires.
    pub not_after: Timestamp,
}

/// A client certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it expires.
    pub not_after: Timestamp,
}

/// An operator's certificate with its key.
#[derive(Debug)]
pub struct OperatorIdentity {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PEM.
    pub key_pem: SecretString,
    /// When it expires.
    pub not_after: Timestamp,
}

/// The certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    trust_anchors: Vec<CertificateDer<'static>>,
    trust_anchors_pem: String,
    not_after: Timestamp,
    agent_ttl: Duration,
}

impl Authority {
    /// Lets agents' certificates live for this long, at most [`AGENT_TTL`], which is the default.
    #[must_use]
    pub fn with_agent_ttl(mut self, ttl: Duration) -> Self {
        self.agent_ttl = ttl.min(AGENT_TTL);
        self
    }

    /// Life of agents' certificates.
    #[must_use]
    pub fn agent_ttl(&self) -> Duration {
        self.agent_ttl
    }

    /// Reads an authority from PEM files. Blocks.
    ///
    /// # Errors
    /// When a file can't be read, or as [`Unusable`] says.
    pub fn load(certificate: &Path, key: &Path, now: Timestamp) -> Result<Self, CaError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| CaError::File {
                path: path.to_owned(),
                source,
            })
        };
        let certificates = read(certificate)?;
        let key = SecretString::from(read(key)?);
        Self::from_pem(&certificates, &key, now).map_err(|problem| CaError::Unusable {
            path: certificate.to_owned(),
            problem,
        })
    }

    /// An authority from PEM texts: one or more certificates, and the key of one of them.
    ///
    /// # Errors
    /// As [`Unusable`] says.
    pub fn of(certificates: &str, key: &SecretString, now: Timestamp) -> Result<Self, CaError> {
        Self::from_pem(certificates, key, now).map_err(CaError::Given)
    }

    /// Reads the authority in a directory, or makes one there if there is none. Blocks.
    ///
    /// # Errors
    /// When it can't be read or written, or is damaged.
    pub fn load_or_create(directory: &Path, now: Timestamp) -> Result<Self, CaError> {
        let (certificate, key) = Self::files_in(directory);
        // The certificate is written last: without it, a key was never used.
        if !certificate.exists() {
            let write = |path: &Path, content: &[u8], mode| {
                files::write_atomically(path, content, mode).map_err(|source| CaError::File {
                    path: path.to_owned(),
                    source,
                })
            };
            let (certificate_pem, key_pem) = new_authority(now)?;
            write(&key, key_pem.expose_secret().as_bytes(), files::SECRET)?;
            write(&certificate, certificate_pem.as_bytes(), files::PUBLIC)?;
        }
        Self::load(&certificate, &key, now)
    }

    /// Where the certificate and the key of an authority in a directory are.
    #[must_use]
    pub fn files_in(directory: &Path) -> (PathBuf, PathBuf) {
        (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE))
    }

    fn from_pem(pem: &str, key: &SecretString, now: Timestamp) -> Result<Self, Unusable> {
        let key = KeyPair::from_pem(key.expose_secret())
            .map_err(|error| Unusable::Key(error.to_string()))?;
        let Bundle {
            issuing,
            not_after,
            trusted,
        } = Bundle::read(pem, &key, now)?;
        let issuer = Issuer::from_ca_cert_der(&issuing, key)
            .map_err(|error| Unusable::Certificate(error.to_string()))?;
        Ok(Self {
            issuer,
            certificate: issuing,
            trust_anchors_pem: bundle::to_pem(&trusted),
            trust_anchors: trusted,
            not_after,
            agent_ttl: AGENT_TTL,
        })
    }

    /// The certificate that issues.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificates to trust, the one that issues first. More than one while one authority replaces another.
    #[must_use]
    pub fn trust_anchors(&self) -> &[CertificateDer<'static>] {
        &self.trust_anchors
    }

    /// The certificates to trust, PEM.
    #[must_use]
    pub fn trust_anchors_pem(&self) -> &str {
        &self.trust_anchors_pem
    }

    /// When the certificate that issues expires. Nothing that it issues is valid for longer.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// SHA-256 of the certificate that issues, for the log: as `openssl x509 -fingerprint -sha256`, without colons.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.certificate);
        let bytes = digest.as_ref().iter();
        bytes.map(|byte| format!("{byte:02X}")).collect()
    }

    /// Makes a key and a certificate for the coordinator's listeners.
    ///
    /// # Errors
    /// When a name is not ASCII, or signing fails.
    pub fn server(&self, names: &[ServerName], now: Timestamp) -> Result<ServerIdentity, CaError> {
        let key = KeyPair::generate()?;
        let names = names
            .iter()
            .map(|name| match name {
                ServerName::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
                ServerName::Ip(address) => Ok(SanType::IpAddress(*address)),
            })
            .collect::<Result<Vec<_>, rcgen::Error>>()?;
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let (certificate, not_after) =
            self.sign(&key, names, "muster-coordinator", usage, SERVER_TTL, now)?;
        Ok(ServerIdentity {
            certificate: certificate.into(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            not_after,
        })
    }

    /// Signs a certificate for the agent on one instance, for at most [`AGENT_TTL`]. Nothing but the
    /// key comes from the agent.
    ///
    /// # Errors
    /// When signing fails.
    pub fn agent(
        &self,
        id: &AgentId,
        key: &RequestedKey,
        now: Timestamp,
    ) -> Result<Issued, CaError> {
        let name = [uri(&SpiffeId::Agent(id.clone()))?];
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let (certificate, not_after) =
            self.sign(key, name.into(), id.instance(), usage, self.agent_ttl, now)?;
        Ok(Issued {
            certificate: certificate.into(),
            not_after,
        })
    }

    /// Makes a key and a certificate for an operator, for at most [`MAX_OPERATOR_TTL`].
    ///
    /// # Errors
    /// When signing fails.
    pub fn operator(
        &self,
        id: &OperatorId,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<OperatorIdentity, CaError> {
        let key = KeyPair::generate()?;
        let name = [uri(&SpiffeId::Operator(id.clone()))?];
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let ttl = ttl.min(MAX_OPERATOR_TTL);
        let (certificate, not_after) = self.sign(&key, name.into(), id.name(), usage, ttl, now)?;
        Ok(OperatorIdentity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem().into(),
            not_after,
        })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<(Certificate, Timestamp), CaError> {
        let not_after = later(now, ttl).min(self.not_after);
        if not_after <= now {
            return Err(CaError::Expired(self.not_after));
        }
        let backdate = match usage {
            ExtendedKeyUsagePurpose::ServerAuth => SERVER_BACKDATE,
            _ => BACKDATED,
        };
        let mut params = params(common_name, (now, backdate), not_after)?;
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(key, &self.issuer)?, not_after))
    }
}

fn new_authority(now: Timestamp) -> Result<(String, SecretString), CaError> {
    let key = KeyPair::generate()?;
    let mut params = params(
        "Muster authority",
        (now, BACKDATED),
        later(now, AUTHORITY_TTL),
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem().into()))
}

fn params(
    common_name: &str,
    (now, backdate): (Timestamp, Duration),
    not_after: Timestamp,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.serial_number = Some(random_serial()?);
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now).saturating_sub(backdate);
    params.not_after = epoch + since_epoch(not_after);
    Ok(params)
}

/// 128 random bits. The DER writer puts a zero before a set highest bit, so they stay positive.
fn random_serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Random)?;
    Ok(SerialNumber::from_slice(&bytes))
}

fn uri(id: &SpiffeId) -> Result<SanType, CaError> {
    Ok(SanType::URI(id.to_string().try_into()?))
}

/// Whole seconds, as certificates have no finer time.
fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0))
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let seconds = since_epoch(now).saturating_add(by).as_secs();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
