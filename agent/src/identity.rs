//! The agent's key and certificate. The key never leaves memory: neither for a disk nor for another host.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::Instant;

use crate::tls::{self, ClientAuth, TlsError};
use crate::wire;

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
    parts: Arc<Parts>,
}

/// What an identity is made of.
#[derive(Debug)]
struct Parts {
    /// PKCS#8, base64.
    key: SecretString,
    certificate: CertificateDer<'static>,
    not_after: Timestamp,
}

/// An identity as it is kept for the next process of the same agent.
#[derive(Serialize, Deserialize)]
struct Kept {
    instance_id: String,
    enrolled_at: Timestamp,
    not_after: Timestamp,
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
    /// No end, or one that is past.
    #[error("the certificate's end is missing or past")]
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
        not_after: Option<&prost_types::Timestamp>,
    ) -> Result<Identity, IdentityError> {
        let anchors = if anchors.is_empty() {
            present.to_vec()
        } else {
            anchors.into_iter().map(CertificateDer::from).collect()
        };
        let not_after = not_after
            .and_then(wire::time)
            .ok_or(IdentityError::Expired)?;
        let key = Zeroizing::new(self.key.serialize_der());
        Identity::new(&key, certificate.into(), anchors, not_after)
    }
}

impl Identity {
    fn new(
        key: &[u8],
        certificate: CertificateDer<'static>,
        anchors: Vec<CertificateDer<'static>>,
        not_after: Timestamp,
    ) -> Result<Self, IdentityError> {
        if not_after <= Timestamp::now() {
            return Err(IdentityError::Expired);
        }
        let auth = ClientAuth {
            certificate: certificate.clone(),
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec())),
        };
        Ok(Self {
            tls: tls::client_config(&anchors, Some(auth))?,
            anchors,
            renew_at: Instant::now() + wire::until(not_after) / 2,
            parts: Arc::new(Parts {
                key: BASE64_STANDARD.encode(key).into(),
                certificate,
                not_after,
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
            not_after: self.parts.not_after,
            key: self.parts.key.expose_secret().to_owned(),
            certificate: encode(&self.parts.certificate),
            anchors: self.anchors.iter().map(encode).collect(),
        };
        Ok(Zeroizing::new(serde_json::to_vec(&kept)?))
    }

    /// The identity in a text that [`Identity::kept`] gave, with the instance id and the time of enrolment.
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
            kept.not_after,
        )?;
        Ok((identity, kept.instance_id, kept.enrolled_at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};

    use tokio::time::Instant;

    use super::{IdentityError, Request};
    use crate::wire;

    fn issue(csr: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::default();
        let authority = params.self_signed(&key).unwrap();
        let request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let issuer = Issuer::new(params, key);
        let certificate = request.signed_by(&issuer).unwrap();
        (certificate.der().to_vec(), authority.der().to_vec())
    }

    #[test]
    fn a_certificate_for_the_key_is_accepted_and_another_is_not() {
        let request = Request::new().unwrap();
        let (certificate, authority) = issue(&request.csr_der());
        let end = wire::timestamp(Timestamp::now() + Duration::from_secs(3600));
        let accept = |certificate: &[u8], end| {
            request.accept(certificate.to_vec(), vec![authority.clone()], &[], end)
        };
        let identity = accept(&certificate, Some(&end)).unwrap();
        let renew_in = identity.renew_at.duration_since(Instant::now());
        assert!(renew_in <= Duration::from_secs(1800));
        assert!(renew_in > Duration::from_secs(1790));

        let (other, _) = issue(&Request::new().unwrap().csr_der());
        assert!(matches!(
            accept(&other, Some(&end)),
            Err(IdentityError::Certificate(_))
        ));
        assert!(matches!(
            accept(b"not a certificate", Some(&end)),
            Err(IdentityError::Certificate(_))
        ));
        let text = identity.kept("i-1", Timestamp::UNIX_EPOCH).unwrap();
        let (again, instance, enrolled_at) = super::Identity::restore(&text).unwrap();
        assert_eq!(
            (instance.as_str(), enrolled_at),
            ("i-1", Timestamp::UNIX_EPOCH)
        );
        assert_eq!(again.anchors, identity.anchors);
        assert!(matches!(
            super::Identity::restore(b"{\"key\": \"s3cret\"}"),
            Err(IdentityError::Kept)
        ));
        assert!(matches!(
            accept(&certificate, None),
            Err(IdentityError::Expired)
        ));
    }
}
