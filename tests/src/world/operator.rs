//! An operator: a client of `OperatorService` with a certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use muster_proto::v1::operator_service_client::OperatorServiceClient;
use muster_proto::v1::{
    self, ListPoolsRequest, ListRunnersRequest, PausePoolRequest, TerminateRunnerRequest,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Time between two looks at the fleet.
const LOOK: Duration = Duration::from_millis(50);

/// A connected operator.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The client, for calls of all kinds.
    pub client: OperatorServiceClient<Channel>,
}

impl Operator {
    /// Connects with the files that `issue-operator-cert` wrote.
    ///
    /// # Errors
    /// When they can't be read or the listener can't be reached.
    pub async fn connect(address: SocketAddr, files: &Path) -> anyhow::Result<Self> {
        let channel = connect(
            address,
            &files.join("ca.crt"),
            Some((&files.join("operator.crt"), &files.join("operator.key"))),
        )
        .await?;
        Ok(Self {
            client: OperatorServiceClient::new(channel),
        })
    }

    /// All runners that are not gone.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn runners(&mut self) -> anyhow::Result<Vec<v1::Runner>> {
        Ok(self
            .client
            .list_runners(ListRunnersRequest::default())
            .await?
            .into_inner()
            .runners)
    }

    /// Pauses all pools, terminates all runners, and waits until they are gone.
    ///
    /// # Errors
    /// When some are left after this time.
    pub async fn end_everything(&mut self, within: Duration) -> anyhow::Result<()> {
        let pools = self
            .client
            .list_pools(ListPoolsRequest::default())
            .await?
            .into_inner()
            .pools;
        for pool in pools {
            let request = PausePoolRequest {
                name: pool.name,
                reason: "closing".into(),
            };
            self.client.pause_pool(request).await?;
        }
        let until = Instant::now() + within;
        loop {
            let runners = self.runners().await?;
            if runners.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("{} runners are left: {runners:#?}", runners.len());
            }
            for runner in runners {
                if runner.state() < v1::RunnerState::Ending {
                    let name = runner.name.clone();
                    let request = TerminateRunnerRequest {
                        name,
                        reason: "closing".into(),
                    };
                    // It may have ended in between.
                    let _ = self.client.terminate_runner(request).await;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Opens a channel that trusts the authorities in a file, with a client certificate and key or without.
///
/// # Errors
/// When a file can't be read or the connection is refused.
pub async fn connect(
    address: SocketAddr,
    authority: &Path,
    identity: Option<(&Path, &Path)>,
) -> anyhow::Result<Channel> {
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_file_iter(authority).context("the authority's certificate")? {
        roots.add(anchor?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(certificate).context("the certificate")?],
            PrivateKeyDer::from_pem_file(key).context("the key")?,
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let service = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://localhost")
        .timeout(Duration::from_secs(30))
        .connect_with_connector(service)
        .await
        .context("connect to the operators' listener")
}

/// Looks until something is found.
///
/// # Errors
/// When it isn't within this time.
pub async fn wait_for<T, F: Future<Output = anyhow::Result<Option<T>>>>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() >= until {
            bail!("{what}: not within {within:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
