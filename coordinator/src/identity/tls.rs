//! The TLS of the listeners, by hand, as the usual defaults of servers let sessions be resumed.
//!
//! A resumed session is not checked against the client's certificate again (rustls 0.23,
//! `server/tls13.rs`: the chain is copied from the ticket), so an expired certificate would go on
//! working. Here nothing is resumed. A configuration may be replaced while connections that were made with it
//! go on: [`Tls::would_take`] tells which of them the new one would not have let in.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig, version::TLS13};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use super::ca::ServerIdentity;
use crate::clock;

/// Most bytes of plain text that wait in one connection for a peer that doesn't read.
pub const SEND_BUFFER: usize = 16 * 1024;

/// A configuration can't be made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// By the key, the certificate or the protocol version.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    /// By the authority that clients' certificates are checked against.
    #[error("tls: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// Which clients may connect.
#[derive(Clone, Copy, Debug)]
pub enum Clients<'a> {
    /// Any; they have no certificate yet.
    Anonymous,
    /// Those with a certificate of one of these authorities.
    CertifiedBy(&'a [CertificateDer<'static>]),
}

/// The TLS of one listener at one time. Each listener needs its own: what authenticates on one must
/// not count on another.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// None where clients have no certificate.
    clients: Option<Trust>,
}

/// Whose certificates count, and what finds out.
#[derive(Debug)]
struct Trust {
    anchors: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// The TLS of a listener.
    ///
    /// # Errors
    /// When key and certificate don't fit, or an authority is unusable.
    pub fn new(identity: &ServerIdentity, clients: Clients<'_>) -> Result<Self, TlsError> {
        let trust = Trust::of(clients)?;
        let config = server_config(identity, trust.as_ref(), Arc::new(SteadyTime))?;
        Ok(Self {
            config: Arc::new(config),
            clients: trust,
        })
    }

    /// What rustls is configured with.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether every authority that `earlier` trusts is trusted here, so that nobody needs to be looked at again.
    #[must_use]
    pub fn trusts_all_of(&self, earlier: &Self) -> bool {
        match (&self.clients, &earlier.clients) {
            (Some(now), Some(before)) => {
                let mut before = before.anchors.iter();
                before.all(|anchor| now.anchors.contains(anchor))
            }
            (now, before) => now.is_none() && before.is_none(),
        }
    }

    /// Whether a chain that a client has shown before would be taken now. Costs as much as in a handshake.
    #[must_use]
    pub fn would_take(&self, chain: &[CertificateDer<'static>]) -> bool {
        match (&self.clients, chain) {
            (None, _) => true,
            (Some(_), []) => false,
            (Some(trust), [leaf, others @ ..]) => {
                let verifier = &trust.verifier;
                let taken = |now| verifier.verify_client_cert(leaf, others, now).is_ok();
                SteadyTime.current_time().is_some_and(taken)
            }
        }
    }
}

/// The time that certificates are judged by: if the system's clock jumped, all of them would have expired.
#[derive(Debug)]
struct SteadyTime;

impl TimeProvider for SteadyTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(clock::now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl Trust {
    fn of(clients: Clients<'_>) -> Result<Option<Self>, TlsError> {
        let Clients::CertifiedBy(anchors) = clients else {
            return Ok(None);
        };
        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            roots.add(anchor.clone())?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        Ok(Some(Self {
            anchors: anchors.to_vec(),
            verifier,
        }))
    }
}

fn server_config(
    identity: &ServerIdentity,
    clients: Option<&Trust>,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, TlsError> {
    let builder =
        ServerConfig::builder_with_details(provider(), time).with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(trust) => builder.with_client_cert_verifier(Arc::clone(&trust.verifier)),
    };
    let mut config =
        builder.with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use jiff::Timestamp;
    use rustls::server::ServerSessionMemoryCache;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject as _;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::identity::ca::{Authority, ServerName};
    use crate::identity::spiffe::{OperatorId, TrustDomain};

    #[derive(Debug)]
    struct Clock(AtomicU64);

    impl TimeProvider for Clock {
        fn current_time(&self) -> Option<UnixTime> {
            let seconds = self.0.load(Ordering::SeqCst);
            Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        }
    }

    struct World {
        authority: Authority,
        identity: ServerIdentity,
        clock: Arc<Clock>,
        start: Timestamp,
        _directory: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let start = Timestamp::now();
            let authority = Authority::load_or_create(directory.path(), start).unwrap();
            let names = [ServerName::from("localhost"), ServerName::from("127.0.0.1")];
            let identity = authority.server(&names, start).unwrap();
            let seconds = u64::try_from(start.as_second()).unwrap();
            Self {
                authority,
                identity,
                clock: Arc::new(Clock(AtomicU64::new(seconds))),
                start,
                _directory: directory,
            }
        }

        fn server(&self) -> ServerConfig {
            let clients = Clients::CertifiedBy(self.authority.trust_anchors());
            let trust = Trust::of(clients).unwrap();
            let clock: Arc<Clock> = Arc::clone(&self.clock);
            server_config(&self.identity, trust.as_ref(), clock).unwrap()
        }

        /// A client that holds a certificate for two seconds, if any, and wants to resume.
        fn client(&self, certified_by: Option<&Authority>) -> Arc<ClientConfig> {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.certificate().clone()).unwrap();
            let builder = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let mut config = match certified_by {
                None => builder.with_no_client_auth(),
                Some(authority) => {
                    let domain = TrustDomain::new("muster.test").unwrap();
                    let id = OperatorId::new(&domain, "alice").unwrap();
                    let ttl = Duration::from_secs(2);
                    let issued = authority.operator(&id, ttl, self.start).unwrap();
                    let certificate =
                        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
                    let key = issued.key_pem.expose_secret().as_bytes();
                    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
                    builder
                        .with_client_auth_cert(vec![certificate], key)
                        .unwrap()
                }
            };
            config.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(config)
        }
    }

    /// Shakes hands in memory; the result is the server's view, with what it wrote after delivered
    /// to the client, so that the client has the tickets.
    fn shake(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> Result<HandshakeKind, rustls::Error> {
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            let mut read = wire.as_slice();
            while !read.is_empty() {
                server.read_tls(&mut read).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            let mut read = wire.as_slice();
            while !read.is_empty() {
                client.read_tls(&mut read).unwrap();
                client.process_new_packets()?;
            }
        }
        assert!(!server.is_handshaking() && !client.is_handshaking());
        Ok(server.handshake_kind().unwrap())
    }

    fn is_expired(outcome: &Result<HandshakeKind, rustls::Error>) -> bool {
        matches!(
            outcome,
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. }
            ))
        )
    }

    #[test]
    fn spire_6715_an_expired_certificate_is_refused_also_from_a_client_that_resumes() {
        let world = World::new();
        let server = Arc::new(world.server());
        let client = world.client(Some(&world.authority));
        assert_eq!(shake(&server, &client), Ok(HandshakeKind::Full));
        assert_eq!(shake(&server, &client), Ok(HandshakeKind::Full));
        world.clock.0.fetch_add(10, Ordering::SeqCst);
        let outcome = shake(&server, &client);
        assert!(is_expired(&outcome), "{outcome:?}");
    }

    #[test]
    fn the_same_client_is_let_in_after_expiry_by_a_server_that_resumes() {
        // What the test above guards against; if this fails, that one proves nothing any more.
        let world = World::new();
        let mut server = world.server();
        server.session_storage = ServerSessionMemoryCache::new(16);
        server.send_tls13_tickets = 2;
        let server = Arc::new(server);
        let client = world.client(Some(&world.authority));
        assert_eq!(shake(&server, &client), Ok(HandshakeKind::Full));
        world.clock.0.fetch_add(10, Ordering::SeqCst);
        assert_eq!(shake(&server, &client), Ok(HandshakeKind::Resumed));
    }

    #[test]
    fn no_certificate_or_a_foreign_authoritys_makes_no_connection() {
        let world = World::new();
        let server = Arc::new(world.server());
        let without = shake(&server, &world.client(None));
        assert_eq!(without, Err(rustls::Error::NoCertificatesPresented));
        let foreign = World::new();
        let outcome = shake(&server, &world.client(Some(&foreign.authority)));
        assert!(
            matches!(outcome, Err(rustls::Error::InvalidCertificate(_))),
            "{outcome:?}"
        );
    }

    #[test]
    fn the_coordinators_own_certificate_is_no_client_certificate() {
        let world = World::new();
        let server = Arc::new(world.server());
        let mut roots = RootCertStore::empty();
        roots.add(world.authority.certificate().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![world.identity.certificate.clone()],
                world.identity.key.clone_key(),
            )
            .unwrap();
        let outcome = shake(&server, &Arc::new(client));
        assert!(
            matches!(outcome, Err(rustls::Error::InvalidCertificate(_))),
            "{outcome:?}"
        );
    }

    #[test]
    fn the_enrolment_listener_asks_for_no_certificate() {
        let world = World::new();
        let tls = Tls::new(&world.identity, Clients::Anonymous).unwrap();
        let outcome = shake(tls.config(), &world.client(None));
        assert_eq!(outcome, Ok(HandshakeKind::Full));
    }
}
