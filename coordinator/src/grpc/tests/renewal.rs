//! Renewals of certificates while the store is out of order.

use muster_proto::v1::Hello;
use muster_proto::v1::agent_service_client::AgentServiceClient;
use tonic::Code;

use super::stream::{Request, Stream};
use super::*;
use crate::grpc::sample::agent_id;
use crate::identity::peer::Peer;
use crate::identity::spiffe::SpiffeId;

/// How long an agent waits for an answer.
const CALL: Duration = Duration::from_secs(10);

/// The certificate for this request, or why there is none, in the time that an agent has for it.
async fn renew(channel: &Channel, request: &Request) -> Result<Vec<u8>, Status> {
    let mut client = AgentServiceClient::new(channel.clone());
    let answer = tokio::time::timeout(CALL, client.renew_certificate(request.message()));
    let answer = answer.await.expect("an answer in time")?;
    Ok(answer.into_inner().certificate_der)
}

/// An agent whose stream is open and known to the ledger.
async fn speaking() -> (World, Channel, Stream) {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    stream.event(1, None).await;
    stream.acknowledged().await;
    (world, channel, stream)
}

#[tokio::test]
async fn an_agent_with_a_stream_renews_while_nothing_can_be_stored() {
    let (world, channel, _stream) = speaking().await;
    let request = Request::new();
    let renewed = world
        .while_nothing_is_stored(renew(&channel, &request))
        .await
        .unwrap();

    let domain = TrustDomain::new("muster.test").unwrap();
    let chain = [CertificateDer::from(renewed.clone())];
    let peer = Peer::from_chain(&chain, &domain).unwrap();
    assert_eq!(peer.id, SpiffeId::Agent(agent_id()));
    let channel = world.connect(world.agents, Some(request.identity(&renewed)));
    Stream::greeted(&channel, Hello::default()).await;
}

#[tokio::test]
async fn an_agent_without_a_stream_comes_again_once_something_can_be_stored() {
    let world = World::with(vec![booting()]).await;
    let token = world.token(SOON).await;
    let (_, (certificate, key)) = world.enroll(token.expose_secret()).await.unwrap();
    let connect = || {
        let identity = (certificate.clone(), key.clone_key());
        world.connect(world.agents, Some(identity))
    };
    let (left, never) = (connect(), connect());
    drop(Stream::greeted(&left, Hello::default()).await);
    world
        .until("silent", |runner| runner.silent_since.is_some())
        .await;
    let request = Request::new();
    let tries = futures::future::join(renew(&left, &request), renew(&never, &request));
    let (left_then, never_then) = world.while_nothing_is_stored(tries).await;
    for refused in [left_then, never_then] {
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    }
    renew(&left, &request).await.unwrap();
}

#[tokio::test]
async fn an_agent_whose_work_is_over_renews_nothing_while_nothing_can_be_stored() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let _stream = Stream::greeted(&channel, Hello::default()).await;
    world.end_the_launch().await;
    let request = Request::new();
    let refused = world.while_nothing_is_stored(renew(&channel, &request));
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test]
async fn renewals_have_the_same_bounds_while_nothing_can_be_stored() {
    let (world, channel, _stream) = speaking().await;
    let request = Request::new();
    while renew(&channel, &request).await.is_ok() {}
    let refused = world.while_nothing_is_stored(renew(&channel, &request));
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}
