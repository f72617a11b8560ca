//! TLS clients of every kind: with a certificate, with a wrong one, without, and with resumption.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Longer than any handshake takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Identity {
    pub(crate) fn new(certificate: Vec<u8>, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.into(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// The files that `issue-operator-cert` wrote.
    pub(crate) fn operator(files: &Path) -> Self {
        Self {
            certificate: CertificateDer::from_pem_file(files.join("operator.crt")).unwrap(),
            key: PrivateKeyDer::from_pem_file(files.join("operator.key")).unwrap(),
        }
    }
}

/// The authority's certificate in the data directory of a coordinator.
pub(crate) fn anchor(data_dir: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(data_dir.join("ca.crt")).unwrap()
}

/// A client that resumes sessions wherever the server lets it.
pub(crate) fn client(
    anchor: &CertificateDer<'static>,
    identity: Option<Identity>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(anchor.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(vec![identity.certificate], identity.key)
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_early_data = true;
    Arc::new(config)
}

/// A channel that connects with its first call.
pub(crate) fn channel(address: SocketAddr, config: Arc<ClientConfig>) -> Channel {
    let connector = TlsConnector::from(config);
    let service = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://localhost")
        .timeout(PATIENCE)
        .connect_with_connector_lazy(service)
}

/// Shakes hands and waits for the server's first word, as with TLS 1.3 a client learns only then
/// whether its certificate was taken. Answers how they shook hands, or why not.
pub(crate) async fn shake(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<HandshakeKind, String> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let mut stream = connector.connect(name, stream).await?;
        match stream.read(&mut [0]).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(stream.get_ref().1.handshake_kind().unwrap()),
        }
    };
    timeout(PATIENCE, exchange)
        .await
        .expect("an answer to a handshake in time")
        .map_err(|error: std::io::Error| error.to_string())
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The one of a coordinator, with its private key.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let key = std::fs::read_to_string(data_dir.join("ca.key")).unwrap();
        let key = KeyPair::from_pem(&key).unwrap();
        let issuer = Issuer::from_ca_cert_der(&anchor(data_dir), key).unwrap();
        Self { issuer }
    }

    /// A stranger's, that calls itself as a coordinator's does.
    pub(crate) fn impostor() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        let name = "Muster authority";
        params.distinguished_name.push(DnType::CommonName, name);
        Self {
            issuer: Issuer::new(params, key),
        }
    }

    /// A client certificate with this URI for a name, valid in these years.
    pub(crate) fn issue(&self, uri: &str, (from, until): (i32, i32)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(certificate.der().to_vec(), &key)
    }
}
