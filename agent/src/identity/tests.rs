use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rstest::rstest;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::Instant;

use super::{BACKDATED, Identity, IdentityError, Request};
use crate::boot::since_boot;
use crate::steady::Steady;

const HOUR: Duration = Duration::from_secs(3600);

/// An authority that certifies as the coordinator's does, by its own clock.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// What its clock shows.
    now: Timestamp,
}

impl Authority {
    /// One whose clock is so far ahead of this host's.
    fn ahead_by(hours: i64) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            certificate: params.self_signed(&key).unwrap().der().clone(),
            issuer: Issuer::new(params, key),
            now: Timestamp::now() + SignedDuration::from_hours(hours),
        }
    }

    fn live(&self, params: &mut CertificateParams, life: SignedDuration) {
        let epoch = |at: Timestamp| {
            let seconds = u64::try_from(at.as_second()).unwrap();
            date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
        };
        params.not_before = epoch(self.now - BACKDATED);
        params.not_after = epoch(self.now + life);
    }

    fn certify(&self, csr: &[u8], life: SignedDuration) -> Vec<u8> {
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        self.live(&mut request.params, life);
        request.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    fn accept(&self, life: SignedDuration) -> Result<Identity, IdentityError> {
        let request = Request::new().unwrap();
        let certificate = self.certify(&request.csr_der(), life);
        let anchors = vec![self.certificate.to_vec()];
        // As when the host has enrolled, whose clock was right then.
        request.accept(certificate, anchors, &[], Steady::at(self.now))
    }

    /// A server that was certified an hour ago for two.
    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["muster.test".to_owned()]).unwrap();
        self.live(&mut params, HOUR.try_into().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// Whether the client takes the server for whom it says it is.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let name = "muster.test".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

fn renews_in(identity: &Identity) -> u64 {
    let left = identity.renew_at.duration_since(Instant::now());
    (left + Duration::from_millis(500)).as_secs()
}

#[rstest]
fn a_certificate_is_renewed_at_half_of_its_life_whatever_the_host_s_clock_shows(
    #[values(-2, 0, 2)] ahead: i64,
) {
    let coordinator = Authority::ahead_by(ahead);
    let identity = coordinator.accept(SignedDuration::from_secs(3600)).unwrap();
    let seconds = renews_in(&identity);
    assert!((1790..=1800).contains(&seconds), "in {seconds} s");
}

#[rstest]
fn a_clock_that_is_set_cuts_nobody_off(#[values(-2, 2)] ahead: i64) {
    // To the host, whose clock was set after it enrolled, the coordinator's certificate is of another time.
    let coordinator = Authority::ahead_by(ahead);
    let server = coordinator.server();
    let identity = coordinator.accept(SignedDuration::from_secs(3600)).unwrap();
    assert_eq!(shake(&identity.tls, &server), Ok(()));
    // Nor does another process of the agent go by the clock as it is now.
    let kept = identity.kept("i-1", Timestamp::UNIX_EPOCH).unwrap();
    let (again, ..) = Identity::restore(&kept).unwrap();
    assert_eq!(again.steady, identity.steady);
    assert_eq!(shake(&again.tls, &server), Ok(()));
    assert!(renews_in(&again).abs_diff(renews_in(&identity)) <= 1);

    let by_the_clock = Request::new().unwrap();
    let life = SignedDuration::from_secs(3600);
    let certificate = coordinator.certify(&by_the_clock.csr_der(), life);
    let anchors = vec![coordinator.certificate.to_vec()];
    let by_the_clock = by_the_clock.accept(certificate, anchors, &[], Steady::start());
    shake(&by_the_clock.unwrap().tls, &server).unwrap_err();
}

#[test]
fn a_life_that_has_passed_is_over() {
    let coordinator = Authority::ahead_by(0);
    for life in [0, -30, -90] {
        let over = coordinator.accept(SignedDuration::from_secs(life));
        assert!(matches!(over, Err(IdentityError::Expired)), "{over:?}");
    }
    let identity = coordinator.accept(SignedDuration::from_secs(30)).unwrap();
    let restored = |seconds| {
        let lived = since_boot() - Duration::from_secs(seconds);
        let key = secrecy::ExposeSecret::expose_secret(&identity.parts.key);
        let key = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, key).unwrap();
        let certificate = identity.parts.certificate.clone();
        let anchors = identity.anchors.clone();
        Identity::new(&key, certificate, anchors, identity.steady, lived)
    };
    assert!((9..=10).contains(&renews_in(&restored(5).unwrap())));
    for lived in [20, 30, 40] {
        assert_eq!(renews_in(&restored(lived).unwrap()), 0);
    }
}

#[test]
fn a_certificate_for_the_key_is_accepted_and_another_is_not() {
    let coordinator = Authority::ahead_by(0);
    let life = SignedDuration::from_secs(3600);
    let request = Request::new().unwrap();
    let accept = |certificate: &[u8]| {
        let anchors = vec![coordinator.certificate.to_vec()];
        request.accept(certificate.to_vec(), anchors, &[], Steady::start())
    };
    let identity = accept(&coordinator.certify(&request.csr_der(), life)).unwrap();
    let other = coordinator.certify(&Request::new().unwrap().csr_der(), life);
    for wrong in [&*other, b"not a certificate"] {
        let refused = accept(wrong);
        assert!(matches!(refused, Err(IdentityError::Certificate(_))));
    }
    let text = identity.kept("i-1", Timestamp::UNIX_EPOCH).unwrap();
    let (again, instance, enrolled_at) = Identity::restore(&text).unwrap();
    assert_eq!(
        (instance.as_str(), enrolled_at),
        ("i-1", Timestamp::UNIX_EPOCH)
    );
    assert_eq!(again.anchors, identity.anchors);
    assert!(matches!(
        Identity::restore(b"{\"key\": \"s3cret\"}"),
        Err(IdentityError::Kept)
    ));
}
