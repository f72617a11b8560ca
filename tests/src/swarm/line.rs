//! Connections that can be cut or muted from outside.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint};

use crate::network::Namespace;

// As the agent has them (`agent/src/tls.rs`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
/// What the coordinator's certificate is made out to.
const SERVER_NAME: &str = "localhost";

/// What becomes of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    muted: Arc<AtomicBool>,
    cut: CancellationToken,
}

impl Fate {
    /// Resets the connection, without a word to the other side.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Lets nothing through any more, in either direction, and keeps it open.
    pub(super) fn mute(&self) {
        self.muted.store(true, Ordering::Relaxed);
    }

    fn is_muted(&self) -> bool {
        self.muted.load(Ordering::Relaxed)
    }
}

/// A TCP connection with a fate.
struct Line {
    tcp: TcpStream,
    fate: Fate,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Line {
    /// An error once it is cut; if not, the task is woken when it is.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.fate.cut.is_cancelled() || self.fate.is_muted() {
            // A reset in place of an orderly end; if it can't be had, the end is orderly.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        if self.fate.is_muted() {
            return Poll::Pending;
        }
        let filled = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(context, buffer))?;
        if self.fate.is_muted() {
            // It was muted while this was on its way.
            buffer.set_filled(filled);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        if self.fate.is_muted() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fate.cut.is_cancelled() || self.fate.is_muted() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// A socket to connect to an address, in a network of its own or here.
fn socket(network: Option<&Namespace>) -> io::Result<TcpSocket> {
    match network {
        None => TcpSocket::new_v4(),
        Some(network) => network
            .enter(|| Ok(TcpSocket::new_v4()?))
            .map_err(io::Error::other),
    }
}

/// Connects to a listener of the coordinator, out of a network or from here.
pub(super) async fn connect(
    network: Option<Arc<Namespace>>,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> Result<(Channel, Fate), tonic::transport::Error> {
    let fate = Fate::default();
    let connector = TlsConnector::from(tls);
    let service = tower::service_fn({
        let fate = fate.clone();
        move |_| {
            let (connector, fate) = (connector.clone(), fate.clone());
            let socket = socket(network.as_deref());
            async move {
                let tcp = socket?.connect(address).await?;
                tcp.set_nodelay(true)?;
                let cut = Box::pin(fate.cut.clone().cancelled_owned());
                let line = Line { tcp, fate, cut };
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, line).await?))
            }
        }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector(service)
        .await?;
    Ok((channel, fate))
}
