use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::*;
use crate::grpc::sample::{ClientIdentity, agent_id, channel, channel_from, operator_identity};
use crate::identity::ca::Authority;
use crate::identity::ca::fixtures::Pair;
use crate::identity::csr::RequestedKey;
use crate::identity::serving::Serving;

/// A listener that serves health, as the role is checked before any service is reached.
struct World {
    pair: Pair,
    authority: Authority,
    serving: Serving,
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
    /// How often a client has connected.
    connections: Arc<AtomicUsize>,
}

impl World {
    async fn serving(role: Role, limits: Limits) -> Self {
        let pair = Pair::new();
        let names = vec!["localhost".into()];
        let serving = Serving::new(pair.with(&[]), names, Timestamp::now()).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (_, health) = tonic_health::server::health_reporter();
        let listener = Listener {
            socket,
            tls: match role {
                Role::Newcomer => serving.enroll(),
                Role::Agent => serving.agents(),
                Role::Operator => serving.operators(),
            },
            role,
            trust_domain: TrustDomain::new("muster.test").unwrap(),
            limits,
            routes: Routes::new(health),
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(listener.serve(stop.clone()));
        Self {
            authority: pair.with(&[]),
            pair,
            serving,
            address,
            stop,
            served,
            connections: Arc::default(),
        }
    }

    fn operator(&self) -> ClientIdentity {
        operator_identity(&self.authority, "muster.test")
    }

    fn agent(&self) -> ClientIdentity {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let requested = RequestedKey::from_csr(csr.der()).unwrap();
        let now = Timestamp::now();
        let issued = self.authority.agent(&agent_id(), &requested, now).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        (issued.certificate, key)
    }

    fn connect(&self, identity: Option<ClientIdentity>) -> Channel {
        let connections = Arc::clone(&self.connections);
        channel(self.address, &self.authority, identity, connections)
    }
}

async fn check(channel: &Channel) -> Result<i32, Status> {
    let mut client = HealthClient::new(channel.clone());
    let request = HealthCheckRequest::default();
    let call = tokio::time::timeout(Duration::from_secs(10), client.check(request));
    Ok(call.await.unwrap()?.into_inner().status)
}

#[tokio::test]
async fn each_role_reaches_its_own_listener_only() {
    for (role, agent_may, operator_may) in
        [(Role::Operator, false, true), (Role::Agent, true, false)]
    {
        let world = World::serving(role, Limits::of(role)).await;
        for (identity, may) in [(world.agent(), agent_may), (world.operator(), operator_may)] {
            let outcome = check(&world.connect(Some(identity))).await;
            match outcome {
                Ok(_) => assert!(may, "{role:?} let a stranger in"),
                Err(refused) => {
                    assert!(!may, "{role:?}: {refused}");
                    assert_eq!(refused.code(), Code::PermissionDenied);
                }
            }
        }
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_no_call() {
    let world = World::serving(Role::Operator, Limits::of(Role::Operator)).await;
    let refused = check(&world.connect(None)).await.unwrap_err();
    // A failure of the transport, not an answer of the server.
    assert!(std::error::Error::source(&refused).is_some(), "{refused:?}");
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_makes_no_call() {
    let world = World::serving(Role::Operator, Limits::of(Role::Operator)).await;
    let identity = operator_identity(&world.authority, "other.test");
    let refused = check(&world.connect(Some(identity))).await.unwrap_err();
    assert!(std::error::Error::source(&refused).is_some(), "{refused:?}");
}

#[tokio::test]
async fn a_connection_past_its_age_keeps_its_streams_and_gets_no_new_call() {
    let limits = Limits {
        age: Duration::from_millis(100),
        ..Limits::of(Role::Operator)
    };
    let world = World::serving(Role::Operator, limits).await;
    let channel = world.connect(Some(world.operator()));
    let mut watch = watch(&channel).await;
    let first = world.connections.load(Ordering::SeqCst);
    let aged = async {
        while world.connections.load(Ordering::SeqCst) == first {
            // A call that meets the farewell on its way is given up by the client unsent.
            if let Err(refused) = check(&channel).await {
                assert_eq!(refused.code(), Code::Cancelled, "{refused}");
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), aged)
        .await
        .expect("calls still go over the old connection");
    let more = tokio::time::timeout(Duration::from_millis(50), watch.message()).await;
    assert!(more.is_err(), "the watch ended: {more:?}");
}

#[tokio::test]
async fn a_stop_cuts_a_stream_that_does_not_end() {
    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Limits::of(Role::Operator)
    };
    let world = World::serving(Role::Operator, limits).await;
    let channel = world.connect(Some(world.operator()));
    // A watch never ends by itself.
    let mut watch = watch(&channel).await;
    world.stop.cancel();
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, world.served)
        .await
        .expect("the listener has not stopped")
        .unwrap();
    let broken = tokio::time::timeout(deadline, watch.message()).await;
    assert!(broken.unwrap().is_err());
}

#[tokio::test]
async fn a_peer_that_does_not_shake_hands_keeps_nobody_out() {
    let world = World::serving(Role::Operator, Limits::of(Role::Operator)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    let outcome = check(&world.connect(Some(world.operator()))).await;
    outcome.unwrap();
}

#[tokio::test]
async fn an_authority_that_is_added_changes_nothing_for_open_connections() {
    let mut world = World::serving(Role::Operator, Limits::of(Role::Operator)).await;
    let (old, new) = (world.operator(), Pair::new());
    let channel = world.connect(Some(world.operator()));
    check(&channel).await.unwrap();
    for key in [&world.pair.key, &new.key] {
        let both = world.pair.bundle(&[&new]);
        world.serving.take_up(&both, key, Timestamp::now()).unwrap();
        check(&channel).await.unwrap();
    }
    assert_eq!(world.connections.load(Ordering::SeqCst), 1);
    // The listener shows the new authority's certificate now, and takes those of both.
    world.authority = new.with(&[]);
    for identity in [old, world.operator()] {
        check(&world.connect(Some(identity))).await.unwrap();
    }
}

#[tokio::test]
async fn an_authority_that_is_dropped_ends_what_its_certificates_opened() {
    let mut world = World::serving(Role::Operator, Limits::of(Role::Operator)).await;
    let (old, new) = (world.operator(), Pair::new());
    let old_channel = world.connect(Some(world.operator()));
    let mut old_watch = watch(&old_channel).await;
    let both = world.pair.bundle(&[&new]);
    world
        .serving
        .take_up(&both, &new.key, Timestamp::now())
        .unwrap();
    world.authority = new.with(&[]);
    let our_channel = world.connect(Some(world.operator()));
    let mut our_watch = watch(&our_channel).await;

    world
        .serving
        .take_up(&new.certificate, &new.key, Timestamp::now())
        .unwrap();
    // A stream that knows nothing of certificates is cut with its connection; until then, calls on it are
    // told why they are refused.
    let refused = refusal(&old_channel).await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let reason = "the authority of the certificate is not trusted any more";
    assert_eq!(refused.message(), reason);
    let ended = tokio::time::timeout(Duration::from_secs(10), old_watch.message());
    ended.await.expect("the stream goes on").unwrap_err();
    let refused = check(&world.connect(Some(old))).await.unwrap_err();
    assert!(std::error::Error::source(&refused).is_some(), "{refused:?}");

    check(&our_channel).await.unwrap();
    let more = tokio::time::timeout(Duration::from_millis(50), our_watch.message()).await;
    assert!(more.is_err(), "the watch ended: {more:?}");
}

/// A watch that has had its first message; no other comes.
async fn watch(channel: &Channel) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(channel.clone());
    let watch = client.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    watch.message().await.unwrap();
    watch
}

/// Calls until a call is refused: the connection hears of a change in a moment.
async fn refusal(channel: &Channel) -> Status {
    let refused = async {
        loop {
            match check(channel).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(refused) => return refused,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .expect("calls are still served")
}

#[tokio::test]
async fn connections_of_one_address_are_bounded_and_leave_the_others_theirs() {
    let limits = Limits {
        per_address: 3,
        ..Limits::of(Role::Operator)
    };
    let world = World::serving(Role::Operator, limits).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    // One more is closed at once, though the server waits for the others.
    let mut more = TcpStream::connect(world.address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), more.read(&mut [0])).await;
    assert!(matches!(closed.unwrap(), Ok(0) | Err(_)));
    let operator = Some(world.operator());
    let other = channel_from("127.0.0.2", world.address, &world.authority, operator);
    check(&other).await.unwrap();
}

#[tokio::test]
async fn silent_connections_of_one_address_keep_no_other_address_out() {
    let world = World::serving(Role::Agent, Limits::of(Role::Agent)).await;
    let mut silent = Vec::new();
    // More than all handshakes.
    for _ in 0..300 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    let agent = Some(world.agent());
    let other = channel_from("127.0.0.2", world.address, &world.authority, agent);
    // Sooner than the silent ones are given up.
    tokio::time::timeout(HANDSHAKE / 2, check(&other))
        .await
        .expect("the silent ones hold all handshakes")
        .unwrap();
}

#[tokio::test]
async fn an_address_may_have_more_connections_than_handshakes_at_a_time() {
    let world = World::serving(Role::Agent, Limits::of(Role::Agent)).await;
    let agent = world.agent();
    let mut open = Vec::new();
    for _ in 0..=HANDSHAKES / 4 {
        let channel = world.connect(Some((agent.0.clone(), agent.1.clone_key())));
        check(&channel).await.unwrap();
        open.push(channel);
    }
}
