//! Serving one listener: TLS, who may call, limits, and an orderly end.
//!
//! Not tonic's own server, as that can't be given a TLS configuration of ours that still tells the
//! services who calls, leaves its connections to nobody, and has no end by the certificate's expiry.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;
use tracing::{debug, info, warn};

use super::authorize::{self, Caller, Role};
use super::per_address::{PerAddress, Share, Turn, Turns};
use super::time::until;
use crate::clock;
use crate::identity::peer::Peer;
use crate::identity::serving::PresentTls;
use crate::identity::spiffe::TrustDomain;
use crate::identity::tls::{SEND_BUFFER, Tls};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most handshakes at a time; more connections wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Most handshakes at a time with one address, so that it keeps no other out; more wait for each other, for
/// as long as a handshake may take.
const HANDSHAKES_PER_ADDRESS: usize = HANDSHAKES / 4;
/// Most connections of one address that wait or shake hands; more are closed at once. Behind a load balancer
/// that hides addresses, those who come at once have the same few.
const COMING_PER_ADDRESS: usize = 2_048;
/// Longest time from a call to the head of its answer. Streams go on after it.
const CALL: Duration = Duration::from_secs(30);
/// Time between two pings on a connection, and how long their answer may take.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long after its certificate has ceased to count a connection is cut, so that its streams can end
/// with a status before.
const EXPIRY_GRACE: Duration = Duration::from_secs(5);
/// Wait after a failed `accept`, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections; more wait in the kernel's queue.
    pub connections: usize,
    /// Most connections of one address, those in their handshake included; more are closed at once.
    pub per_address: usize,
    /// Most calls at a time on one connection.
    pub streams: u32,
    /// Age at which a connection takes no new call. Streams that are open go on until they end, or
    /// the certificate expires.
    pub age: Duration,
    /// Age at which a connection without a certificate is cut.
    pub anonymous_age: Duration,
    /// How long open calls may take to end once the listener stops.
    pub drain: Duration,
}

impl Limits {
    /// The limits for a role. An agent renews its certificate and comes back with a new connection
    /// at half of the certificate's hour, so that the age meets only those who don't.
    #[must_use]
    pub fn of(role: Role) -> Self {
        let common = Self {
            connections: 25_000,
            // Behind a load balancer that hides addresses, all agents have the same few.
            per_address: usize::MAX,
            streams: 4,
            age: Duration::from_secs(40 * 60),
            anonymous_age: Duration::from_secs(90),
            drain: Duration::from_secs(10),
        };
        match role {
            Role::Agent => common,
            Role::Newcomer => Self {
                connections: 4_096,
                per_address: HANDSHAKES_PER_ADDRESS,
                age: Duration::from_secs(60),
                ..common
            },
            Role::Operator => Self {
                connections: 256,
                streams: 64,
                age: Duration::from_secs(30 * 60),
                ..common
            },
        }
    }
}

/// Where a call comes from: the other end of its connection, as TCP says.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

/// One listener, ready to serve.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub socket: TcpListener,
    /// Its TLS, shared with no other listener. One that replaces it holds for new connections; those whose
    /// certificates it would not take are ended.
    pub tls: PresentTls,
    /// Whom it serves.
    pub role: Role,
    /// The trust domain of its clients.
    pub trust_domain: TrustDomain,
    /// What it allows.
    pub limits: Limits,
    /// Its services.
    pub routes: Routes,
}

struct Shared {
    tls: PresentTls,
    role: Role,
    trust_domain: TrustDomain,
    limits: Limits,
    routes: Routes,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Listener {
    /// Serves until `stop`, then lets open calls end, and returns once all connections are closed.
    pub async fn serve(self, stop: CancellationToken) {
        let tasks = Tasks::default();
        let shared = Arc::new(Shared {
            tls: self.tls,
            role: self.role,
            trust_domain: self.trust_domain,
            limits: self.limits,
            routes: self.routes.prepare(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        stop.run_until_cancelled(accept(&self.socket, &shared))
            .await;
        drop(self.socket);
        tasks.tracker.close();
        if tokio::time::timeout(self.limits.drain, tasks.tracker.wait())
            .await
            .is_err()
        {
            let open = tasks.tracker.len();
            warn!(role = ?self.role, open, "connections are cut, as their calls did not end in time");
            tasks.cut.cancel();
            tasks.tracker.wait().await;
        }
    }
}

async fn accept(socket: &TcpListener, shared: &Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(shared.limits.connections));
    let addresses = PerAddress::new(shared.limits.per_address);
    let coming = PerAddress::new(COMING_PER_ADDRESS);
    let entrance = Entrance {
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        turns: Turns::new(HANDSHAKES_PER_ADDRESS),
    };
    loop {
        // It is never closed.
        let Ok(connection) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        match socket.accept().await {
            Ok((tcp, address)) => {
                let Some(share) = addresses.take(address.ip()) else {
                    debug!(role = ?shared.role, %address, "an address has too many connections");
                    continue;
                };
                let Some(comes) = coming.take(address.ip()) else {
                    debug!(role = ?shared.role, %address, "an address has too many handshakes");
                    continue;
                };
                let (shared, entrance) = (Arc::clone(shared), entrance.clone());
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    if let Some(handshake) = entrance.turn(address.ip()).await {
                        serve_connection(&shared, tcp, address, (comes, handshake)).await;
                    }
                    drop((connection, share));
                });
            }
            Err(error) => {
                warn!(role = ?shared.role, %error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Where connections wait for their handshake.
#[derive(Clone)]
struct Entrance {
    handshakes: Arc<Semaphore>,
    turns: Turns,
}

/// What a handshake holds: of its address's, and of all.
type Handshake = (Turn, OwnedSemaphorePermit);

impl Entrance {
    /// Waits for the address's turn, and then for that of all; none if it does not come in time.
    async fn turn(&self, address: IpAddr) -> Option<Handshake> {
        let wait = async {
            let turn = self.turns.wait(address).await;
            let handshake = Arc::clone(&self.handshakes).acquire_owned().await.ok()?;
            Some((turn, handshake))
        };
        tokio::time::timeout(HANDSHAKE, wait).await.ok().flatten()
    }
}

async fn serve_connection(
    shared: &Shared,
    tcp: TcpStream,
    address: SocketAddr,
    handshake: (Share, Handshake),
) {
    let mut following = Following::new(&shared.tls);
    // What most of the time is over, or exists twice while it moves, is on the heap: there are thousands of these.
    let Some(tls) = Box::pin(shake(shared, &following, tcp, address)).await else {
        return;
    };
    drop(handshake);
    let chain = match (shared.role, tls.get_ref().1.peer_certificates()) {
        (Role::Newcomer, _) | (_, None) => Vec::new(),
        (_, Some(chain)) => chain.to_vec(),
    };
    let caller = match shared.role {
        Role::Newcomer => None,
        _ => match Peer::from_chain(&chain, &shared.trust_domain) {
            Ok(peer) => Some(Caller::new(peer)),
            Err(error) => {
                warn!(role = ?shared.role, %address, %error, "a certificate names nobody");
                return;
            }
        },
    };

    let now = clock::now();
    let cut_after = caller.as_ref().map_or(shared.limits.anonymous_age, |it| {
        until(it.peer.not_after, now) + EXPIRY_GRACE
    });
    let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(address.ip()));
        Box::pin(answer(
            shared.role,
            caller.clone(),
            shared.routes.clone(),
            request,
        ))
    });
    let mut distrusted = std::pin::pin!(following.until_refused(&chain));
    let connection = settings(shared).serve_connection(TokioIo::new(tls), service);
    let mut connection = Box::pin(connection);
    let mut cut = std::pin::pin!(tokio::time::sleep(cut_after));
    let mut age = std::pin::pin!(tokio::time::sleep(shared.limits.age));
    let (mut leaving, mut trusted) = (false, caller.as_ref());
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(role = ?shared.role, %address, %error, "a connection broke");
                }
                return;
            }
            () = &mut cut => {
                debug!(role = ?shared.role, %address, "a connection was cut at its time");
                return;
            }
            () = &mut distrusted, if trusted.is_some() => {
                if let Some(caller) = trusted.take() {
                    let id = &caller.peer.id;
                    info!(role = ?shared.role, %address, %id, "a connection ends, as the authority of its certificate was dropped");
                    caller.distrust();
                }
                let soon = cut.deadline().min(Instant::now() + EXPIRY_GRACE);
                cut.as_mut().reset(soon);
            }
            () = &mut age, if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = shared.stop.cancelled(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn shake(
    shared: &Shared,
    following: &Following,
    tcp: TcpStream,
    address: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%address, %error, "a connection was closed at once");
        return None;
    }
    let acceptor = TlsAcceptor::from(Arc::clone(following.taken_by.config()));
    let shaken = acceptor.accept_with(tcp, |tls| tls.set_buffer_limit(Some(SEND_BUFFER)));
    match tokio::time::timeout(HANDSHAKE, shaken).await {
        Ok(Ok(tls)) => Some(tls),
        Ok(Err(error)) => {
            debug!(role = ?shared.role, %address, %error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            debug!(role = ?shared.role, %address, "a TLS handshake took too long");
            None
        }
    }
}

/// The listener's TLS as one connection follows it.
struct Following {
    present: PresentTls,
    /// What the connection was taken by, or would be since.
    taken_by: Arc<Tls>,
}

impl Following {
    fn new(present: &PresentTls) -> Self {
        let mut present = present.clone();
        let taken_by = Arc::clone(&present.borrow_and_update());
        Self { present, taken_by }
    }

    /// Waits until the TLS is replaced by one that would not take this chain. A change that trusts whom it has
    /// trusted before costs nothing.
    async fn until_refused(&mut self, chain: &[CertificateDer<'static>]) {
        while self.present.changed().await.is_ok() {
            let now = Arc::clone(&self.present.borrow_and_update());
            if !now.trusts_all_of(&self.taken_by) && !now.would_take(chain) {
                return;
            }
            self.taken_by = now;
        }
        // Nobody is left who could replace it.
        std::future::pending::<()>().await;
    }
}

/// HTTP/2 with small windows: an agent's messages are small, and there are many agents.
fn settings(shared: &Shared) -> http2::Builder<Tasks> {
    let mut http = http2::Builder::new(shared.tasks.clone());
    http.timer(TokioTimer::new())
        .initial_connection_window_size(256 * 1024)
        .initial_stream_window_size(128 * 1024)
        .adaptive_window(false)
        .max_concurrent_streams(shared.limits.streams)
        .max_send_buf_size(32 * 1024)
        .max_header_list_size(8 * 1024)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    http
}

async fn answer(
    role: Role,
    caller: Option<Caller>,
    mut routes: Routes,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    if let Err(refused) = authorize::admit(role, caller.as_ref(), clock::now()) {
        let id = caller.as_ref().map(|caller| caller.peer.id.to_string());
        warn!(method = request.uri().path(), id, %refused, "a call was refused");
        return Ok(Status::from(refused).into_http());
    }
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    match tokio::time::timeout(CALL, routes.call(request.map(Body::new))).await {
        Ok(answered) => answered,
        Err(_) => Ok(Status::deadline_exceeded("the call took too long").into_http()),
    }
}

/// The tasks of a listener: its connections, and their calls.
#[derive(Clone, Debug, Default)]
struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    fn spawn<F: Future<Output: Send + 'static> + Send + 'static>(&self, task: F) {
        let cut = self.cut.clone();
        self.tracker.spawn(cut.run_until_cancelled_owned(task));
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

#[cfg(test)]
mod tests;
