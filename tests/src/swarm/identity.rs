//! Keys and certificates of agents, in memory, and TLS as the agent speaks it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::Instant;

/// The coordinator's authority: who is believed to be it.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    certificate: CertificateDer<'static>,
    roots: Arc<RootCertStore>,
}

impl Anchor {
    pub(super) fn new(certificate: CertificateDer<'static>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        Ok(Self {
            certificate,
            roots: Arc::new(roots),
        })
    }

    /// TLS 1.3 without resumption; the client proves `client` if it is given.
    pub(super) fn tls(
        &self,
        client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match client {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// A key that waits for its certificate.
pub(super) struct Request {
    key: KeyPair,
    /// The certificate request, DER.
    pub(super) csr_der: Vec<u8>,
}

/// A certificate that can be shown.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Settings that prove it.
    pub(super) tls: Arc<ClientConfig>,
    /// At a quarter of its life: a real agent waits until half of it is over, but enrols anew if that was too long.
    pub(super) renew_at: Instant,
}

impl Request {
    /// A new P-256 key.
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let csr_der = csr.der().to_vec();
        Ok(Self { key, csr_der })
    }

    /// Joins the key and the certificate that was given for it.
    pub(super) fn accept(
        &self,
        anchor: &Anchor,
        certificate: Vec<u8>,
        anchors: &[Vec<u8>],
        not_after: Option<prost_types::Timestamp>,
    ) -> anyhow::Result<Identity> {
        let ours = [anchor.certificate.as_ref()];
        ensure!(
            anchors.iter().map(Vec::as_slice).eq(ours),
            "the coordinator names other authorities than its own"
        );
        let not_after = not_after.context("a certificate without an end")?;
        let not_after = Timestamp::new(not_after.seconds, not_after.nanos)?;
        let life = Duration::try_from(not_after.duration_since(Timestamp::now()))
            .ok()
            .filter(|life| !life.is_zero())
            .context("a certificate that has expired")?;
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        Ok(Identity {
            tls: anchor.tls(Some((certificate.into(), PrivateKeyDer::from(key))))?,
            renew_at: Instant::now() + life / 4,
        })
    }
}
