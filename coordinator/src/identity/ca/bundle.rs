//! The authority's certificates as they are given: the one that issues, and all that are trusted.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use x509_parser::parse_x509_certificate;

/// Most bytes of all certificates together, as each enrolment's answer carries them.
const MAX_BYTES: usize = 8 * 1024;
/// Characters in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// Certificates and a key don't make an authority. Shows nothing of either but how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    /// There is no certificate, or one can't be read.
    #[error("no certificate: {0}")]
    Certificate(String),
    /// There is no private key, or it can't be read.
    #[error("no private key: {0}")]
    Key(String),
    /// The key is none of the certificates'. So it looks while only one of the two has been replaced.
    #[error(
        "the key belongs to none of the {0} certificates; the certificate of the key must be among them"
    )]
    ForeignKey(usize),
    /// A certificate is no authority's.
    #[error("certificate {position} of {count} is not an authority's; remove it")]
    Leaf {
        /// Which one, from 1.
        position: usize,
        /// How many there are.
        count: usize,
    },
    /// The certificate of the key has expired.
    #[error("the certificate of the key expired at {0}; replace both")]
    Expired(Timestamp),
    /// The certificate of the key is of the future.
    #[error("the certificate of the key is not valid before {0}; keep the present key until then")]
    Early(Timestamp),
    /// There are too many certificates.
    #[error(
        "the certificates have {0} bytes, and {MAX_BYTES} is the most; remove those no longer needed"
    )]
    Large(usize),
}

/// A checked bundle.
pub(super) struct Bundle {
    /// The certificate that issues.
    pub(super) issuing: CertificateDer<'static>,
    /// When it expires.
    pub(super) not_after: Timestamp,
    /// All that are trusted: the one that issues first, then the others as they were given. Those that
    /// have expired are left out, as TLS doesn't look at the time of what it is told to trust.
    pub(super) trusted: Vec<CertificateDer<'static>>,
}

/// One certificate, with what counts of it.
struct One {
    der: CertificateDer<'static>,
    is_of_key: bool,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Bundle {
    /// Checks the certificates in a PEM text beside the key that is to issue. If several are of this key, the
    /// one that is valid longest issues.
    pub(super) fn read(pem: &str, key: &KeyPair, now: Timestamp) -> Result<Self, Unusable> {
        let unreadable = |error: String| Unusable::Certificate(error);
        let mut given: Vec<CertificateDer<'static>> = Vec::new();
        for one in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let one = one.map_err(|error| unreadable(error.to_string()))?;
            if !given.contains(&one) {
                given.push(one);
            }
        }
        if given.is_empty() {
            return Err(unreadable("there is none in the text".to_owned()));
        }
        let bytes = given.iter().map(|one| one.len()).sum();
        if bytes > MAX_BYTES {
            return Err(Unusable::Large(bytes));
        }
        let count = given.len();
        let mut all = Vec::with_capacity(count);
        for (index, der) in given.into_iter().enumerate() {
            let one = One::read(der, key)?.ok_or(Unusable::Leaf {
                position: index + 1,
                count,
            })?;
            all.push(one);
        }
        let issuing = all.iter().enumerate().filter(|(_, one)| one.is_of_key);
        let issuing = issuing.max_by_key(|(_, one)| one.not_after);
        let Some((index, _)) = issuing else {
            return Err(Unusable::ForeignKey(count));
        };
        let issuing = all.remove(index);
        if issuing.not_after <= now {
            return Err(Unusable::Expired(issuing.not_after));
        }
        if issuing.not_before > now {
            return Err(Unusable::Early(issuing.not_before));
        }
        let others = all.into_iter().filter(|one| one.not_after > now);
        let others = others.map(|one| one.der);
        Ok(Self {
            trusted: std::iter::once(issuing.der.clone()).chain(others).collect(),
            issuing: issuing.der,
            not_after: issuing.not_after,
        })
    }
}

impl One {
    /// None if it is no authority's.
    fn read(der: CertificateDer<'static>, key: &KeyPair) -> Result<Option<Self>, Unusable> {
        let unreadable = |error: String| Unusable::Certificate(error);
        let (_, parsed) =
            parse_x509_certificate(&der).map_err(|error| unreadable(error.to_string()))?;
        let time =
            |at: i64| Timestamp::from_second(at).map_err(|error| unreadable(error.to_string()));
        let (not_before, not_after) = (
            time(parsed.validity().not_before.timestamp())?,
            time(parsed.validity().not_after.timestamp())?,
        );
        let is_of_key = parsed.public_key().subject_public_key.data.as_ref() == key.der_bytes();
        let is_authority = parsed.is_ca();
        Ok(is_authority.then_some(Self {
            der,
            is_of_key,
            not_before,
            not_after,
        }))
    }
}

/// Certificates as PEM, and nothing else that was beside them.
pub(super) fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = BASE64_STANDARD.encode(certificate);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}
