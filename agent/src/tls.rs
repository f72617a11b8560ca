//! The one door to TLS: how a connection to the coordinator is made.
//!
//! TLS 1.3 with ring, no resumption: a resumed connection would not prove the client's certificate
//! again. tonic's own TLS settings can't say that, so it gets a connector.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::config::Remote;
use crate::dial::dial;

/// Longest time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What TCP has of it. Less, so that it can be said which addresses didn't answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection over which nothing came for this long is asked whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// It has this long to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection can't be made.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// An authority's certificate, or the own one, is not usable.
    #[error("set up TLS: {0}")]
    Setup(#[from] rustls::Error),
    /// No connection.
    #[error("connect to {url}: {}", chain(.source))]
    Connect {
        /// Where to.
        url: String,
        /// Why not.
        source: tonic::transport::Error,
    },
}

/// All of an error's causes in one line. tonic's own text is "transport error" only.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// What a client certificate is proved with.
#[derive(Debug)]
pub(crate) struct ClientAuth {
    /// The certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// Its key.
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Settings that trust `anchors` only, at the time that `time` tells, and prove `client` if it is given.
pub(crate) fn client_config(
    anchors: &[CertificateDer<'static>],
    client: Option<ClientAuth>,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots.add(anchor.clone())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match client {
        Some(auth) => builder.with_client_auth_cert(vec![auth.certificate], auth.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Connects to a listener of the coordinator.
pub(crate) async fn connect(
    remote: &Remote,
    config: Arc<ClientConfig>,
) -> Result<Channel, TlsError> {
    let failed = |source| TlsError::Connect {
        url: remote.url.to_string(),
        source,
    };
    let endpoint = Endpoint::from_shared(remote.url.to_string())
        .map_err(failed)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let connector = Connector {
        tls: TlsConnector::from(config),
        server_name: remote.server_name.clone(),
    };
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(failed)
}

/// Makes tonic's connections.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    server_name: ServerName<'static>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, server_name } = self.clone();
        Box::pin(async move {
            let handshake = async {
                let until = Instant::now() + DIAL_TIMEOUT;
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                let port = uri.port_u16().unwrap_or(443);
                let stream = dial(host, port, until).await?;
                stream.set_nodelay(true)?;
                tls.connect(server_name, stream).await
            };
            // tonic's own limit is on this future as well; this one holds if that changes.
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, handshake)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(TokioIo::new(stream))
        })
    }
}
