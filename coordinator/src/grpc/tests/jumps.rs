//! The system's clock is wrong, or jumps, while agents are connected.

use jiff::SignedDuration;
use muster_proto::v1::Hello;
use rstest::rstest;

use super::stream::Stream;
use super::*;
use crate::clock::simulated;
use crate::grpc::sample::agent_id;
use crate::identity::ca::AGENT_TTL;
use crate::identity::csr::RequestedKey;

const MONTH: i64 = 30 * 24;

/// What goes by the system's clock sees certificates that are a month old, or of the next month.
#[rstest]
#[case::ahead(-MONTH, 2)]
#[case::back(MONTH, -2)]
#[tokio::test]
async fn a_clock_that_jumps_ends_no_stream_and_keeps_no_agent_out(
    #[case] off: i64,
    #[case] jump: i64,
) {
    simulated::start(Timestamp::now() + SignedDuration::from_hours(off));
    let world = World::with(vec![booting()]).await;
    let token = world.token(SOON).await;
    let (_, (certificate, key)) = world.enroll(token.expose_secret()).await.unwrap();
    let connect = || {
        let identity = (certificate.clone(), key.clone_key());
        world.connect(world.agents, Some(identity))
    };
    let mut stream = Stream::greeted(&connect(), Hello::default()).await;
    simulated::jump(SignedDuration::from_hours(jump));
    stream.event(1, None).await;
    stream.acknowledged().await;
    // Certificates of before and after the jump make connections.
    let mut again = Stream::greeted(&connect(), Hello::default()).await;
    again.event(2, None).await;
    again.acknowledged().await;
    let renewed = world.certified(clock::now());
    Stream::greeted(
        &world.connect(world.agents, Some(renewed)),
        Hello::default(),
    )
    .await;

    let old = clock::now() - AGENT_TTL - SignedDuration::from_secs(1);
    let expired = world.connect(world.agents, Some(world.certified(old)));
    let refused = Stream::open(&expired).await.err().unwrap();
    assert!(
        format!("{refused:?}").contains("CertificateExpired"),
        "{refused:?}"
    );
}

impl World {
    /// What the agent proves who it is with if it was certified then.
    fn certified(&self, at: Timestamp) -> ClientIdentity {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key);
        let requested = RequestedKey::from_csr(csr.unwrap().der()).unwrap();
        let issued = self.authority.agent(&agent_id(), &requested, at).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        (issued.certificate, key)
    }
}
