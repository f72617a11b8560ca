//! Certificate requests: a public key, and the proof that the sender holds the private one.

use rcgen::{PublicKeyData, SignatureAlgorithm};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Most bytes of a request. One for a P-256 key has about 300.
pub const MAX_CSR_BYTES: usize = 4096;

/// A request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CsrError {
    /// It is larger than any honest request.
    #[error("the certificate request is larger than {MAX_CSR_BYTES} bytes")]
    TooLarge,
    /// It is not one PKCS#10 request in DER.
    #[error("the certificate request is not PKCS#10 in DER")]
    Malformed,
    /// Its key is of a kind that we don't sign. Checked before any computation with the key.
    #[error("the key of the certificate request is neither P-256 nor Ed25519")]
    Key,
    /// It is not signed with its own key.
    #[error("the certificate request is not signed with its own key")]
    Signature,
}

/// The public key of a request whose signature was checked. Subject and extensions of the request
/// are left behind, so they can't reach a certificate (CVE-2021-27098).
#[derive(Clone, Debug)]
pub struct RequestedKey(rcgen::SubjectPublicKeyInfo);

impl RequestedKey {
    /// Checks a request and takes its public key.
    ///
    /// # Errors
    /// When it is too large or malformed, has another kind of key, or is not signed by it.
    pub fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLarge);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let key = &request.certification_request_info.subject_pki;
        let signature = &request.signature_algorithm.algorithm;
        let expected = if is_p256(key) {
            OID_SIG_ECDSA_WITH_SHA256
        } else if key.algorithm.algorithm == OID_SIG_ED25519 {
            OID_SIG_ED25519
        } else {
            return Err(CsrError::Key);
        };
        if *signature != expected {
            return Err(CsrError::Signature);
        }
        request
            .verify_signature()
            .map_err(|_| CsrError::Signature)?;
        rcgen::SubjectPublicKeyInfo::from_der(key.raw)
            .map(Self)
            .map_err(|_| CsrError::Key)
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| Oid::try_from(parameters).ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use rstest::rstest;

    use super::*;

    fn csr(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::default();
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn the_key_of_a_request_is_taken() {
        for key in [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        ] {
            let taken = RequestedKey::from_csr(&csr(&key)).unwrap();
            assert_eq!(taken.der_bytes(), key.der_bytes());
        }
    }

    #[test]
    fn spire_1_14_2_another_kind_of_key_is_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(
            RequestedKey::from_csr(&csr(&key)).unwrap_err(),
            CsrError::Key
        );
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut der = csr(&mine);
        let at = der
            .windows(mine.der_bytes().len())
            .position(|window| window == mine.der_bytes())
            .unwrap();
        der[at..at + theirs.der_bytes().len()].copy_from_slice(theirs.der_bytes());
        assert_eq!(
            RequestedKey::from_csr(&der).unwrap_err(),
            CsrError::Signature
        );
    }

    #[rstest]
    #[case::empty(Vec::new())]
    #[case::text(b"-----BEGIN CERTIFICATE REQUEST-----".to_vec())]
    #[case::no_end(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff])]
    fn what_is_no_request_is_refused(#[case] der: Vec<u8>) {
        assert_eq!(
            RequestedKey::from_csr(&der).unwrap_err(),
            CsrError::Malformed
        );
    }

    #[test]
    fn a_large_request_and_trailing_bytes_are_refused() {
        let mut der = csr(&KeyPair::generate().unwrap());
        der.push(0);
        assert_eq!(
            RequestedKey::from_csr(&der).unwrap_err(),
            CsrError::Malformed
        );
        der.resize(MAX_CSR_BYTES + 1, 0);
        assert_eq!(
            RequestedKey::from_csr(&der).unwrap_err(),
            CsrError::TooLarge
        );
    }
}
