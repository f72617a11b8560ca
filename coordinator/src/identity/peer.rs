//! Whom a connection speaks for, read once from the certificate that TLS verified.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::spiffe::{SpiffeError, SpiffeId, TrustDomain};

/// The verified identity of the other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whom the certificate speaks for.
    pub id: SpiffeId,
    /// When the certificate expires.
    pub not_after: Timestamp,
    /// Its serial number, hexadecimal, for the log.
    pub serial: String,
}

/// A verified certificate doesn't say whom it speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// There is none.
    #[error("no certificate")]
    Missing,
    /// It can't be read.
    #[error("the certificate can't be read: {0}")]
    Malformed(String),
    /// It has not exactly one name.
    #[error("the certificate has {0} subject alternative names, not one")]
    Names(usize),
    /// The name is no URI.
    #[error("the certificate's name is no URI")]
    NoUri,
    /// The URI is no name of ours.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
    /// It is of another trust domain.
    #[error("trust domain {0} is not ours")]
    TrustDomain(TrustDomain),
}

impl Peer {
    /// Reads the identity from the chain that the peer sent and TLS verified. Only the first
    /// certificate counts: it is the one whose key the peer proved to hold.
    ///
    /// # Errors
    /// When there is none, or it has not exactly one name, of our trust domain.
    pub fn from_chain(
        chain: &[CertificateDer<'_>],
        trust_domain: &TrustDomain,
    ) -> Result<Self, PeerError> {
        let leaf = chain.first().ok_or(PeerError::Missing)?;
        let malformed = |detail: String| PeerError::Malformed(detail);
        let (_, certificate) =
            parse_x509_certificate(leaf).map_err(|error| malformed(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| malformed(error.to_string()))?;
        let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
        let [name] = names else {
            return Err(PeerError::Names(names.len()));
        };
        let GeneralName::URI(uri) = name else {
            return Err(PeerError::NoUri);
        };
        let id: SpiffeId = uri.parse()?;
        if id.trust_domain() != trust_domain {
            return Err(PeerError::TrustDomain(id.trust_domain().clone()));
        }
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
            .map_err(|error| malformed(error.to_string()))?;
        Ok(Self {
            id,
            not_after,
            serial: certificate.raw_serial_as_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};
    use rstest::rstest;

    use super::*;

    const OPERATOR: &str = "spiffe://muster.test/operator/alice";
    const AGENT: &str = "spiffe://muster.test/pool/linux/instance/local/local/i-0123456789abcdef0";

    fn certificate(uris: &[&str], dns: &[&str]) -> CertificateDer<'static> {
        let dns: Vec<String> = dns.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        for &uri in uris {
            let uri = SanType::URI(uri.try_into().unwrap());
            params.subject_alt_names.push(uri);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().into()
    }

    fn read(chain: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
        Peer::from_chain(chain, &TrustDomain::new("muster.test").unwrap())
    }

    #[test]
    fn spire_1_15_1_the_first_certificate_alone_says_who_it_is() {
        let chain = [certificate(&[AGENT], &[]), certificate(&[OPERATOR], &[])];
        assert_eq!(read(&chain).unwrap().id.to_string(), AGENT);
    }

    #[rstest]
    #[case::no_name(&[], &[], PeerError::Names(0))]
    #[case::two_uris(&[AGENT, OPERATOR], &[], PeerError::Names(2))]
    #[case::uri_and_dns(&[OPERATOR], &["alice.test"], PeerError::Names(2))]
    #[case::dns(&[], &["alice.test"], PeerError::NoUri)]
    fn a_certificate_without_exactly_one_uri_is_refused(
        #[case] uris: &[&str],
        #[case] dns: &[&str],
        #[case] error: PeerError,
    ) {
        assert_eq!(read(&[certificate(uris, dns)]).unwrap_err(), error);
    }

    #[test]
    fn another_trust_domain_or_another_form_is_refused() {
        let foreign = certificate(&["spiffe://other.test/operator/alice"], &[]);
        assert!(matches!(read(&[foreign]), Err(PeerError::TrustDomain(_))));
        let climbing = certificate(&["spiffe://muster.test/operator/../operator/alice"], &[]);
        assert!(matches!(read(&[climbing]), Err(PeerError::Spiffe(_))));
    }

    #[test]
    fn no_certificate_and_no_der_are_refused() {
        assert_eq!(read(&[]).unwrap_err(), PeerError::Missing);
        let junk = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert!(matches!(read(&[junk]), Err(PeerError::Malformed(_))));
    }
}
