//! An agent's side of a session.

use muster_core::{GithubRunnerId, RunnerName, Stage};
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::agent_service_client::AgentServiceClient;
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{
    AgentEvent, AssignmentAccepted, Hello, PhaseChanged, RenewCertificateRequest, RunnerPhase,
    SessionRequest, SessionResponse,
};
use tonic::Streaming;

use super::*;

pub(super) const NAME: &str = "muster-linux-launch-a";

pub(super) struct Stream {
    pub(super) say: mpsc::Sender<SessionRequest>,
    pub(super) told: Streaming<SessionResponse>,
}

impl Stream {
    pub(super) async fn open(channel: &Channel) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(8);
        let mut client = AgentServiceClient::new(channel.clone());
        let told = client
            .session(ReceiverStream::new(said))
            .await?
            .into_inner();
        Ok(Self { say, told })
    }

    /// Opens a stream, says hello and reads the settings.
    pub(super) async fn greeted(channel: &Channel, hello: Hello) -> Self {
        let mut stream = Self::open(channel).await.unwrap();
        stream.say(Said::Hello(hello)).await;
        assert!(matches!(stream.next().await, Ok(Some(Told::Configure(_)))));
        stream
    }

    pub(super) async fn say(&self, message: Said) {
        let message = Some(message);
        self.say.send(SessionRequest { message }).await.unwrap();
    }

    pub(super) async fn event(&self, sequence: u64, kind: Option<Kind>) {
        let event = AgentEvent {
            sequence,
            at: None,
            kind,
        };
        self.say(Said::Event(event)).await;
    }

    pub(super) async fn next(&mut self) -> Result<Option<Told>, Status> {
        let message = tokio::time::timeout(SOON, self.told.message()).await;
        Ok(message.expect("no message")?.and_then(|it| it.message))
    }

    pub(super) async fn acknowledged(&mut self) -> u64 {
        match self.next().await {
            Ok(Some(Told::Acknowledge(it))) => it.through_sequence,
            other => panic!("no acknowledgement: {other:?}"),
        }
    }
}

pub(super) fn phase(phase: RunnerPhase) -> Option<Kind> {
    Some(Kind::PhaseChanged(PhaseChanged {
        phase: phase.into(),
        job_display_name: String::new(),
    }))
}

pub(super) fn accepted() -> Option<Kind> {
    Some(Kind::AssignmentAccepted(AssignmentAccepted {
        runner_name: NAME.to_owned(),
    }))
}

pub(super) fn returning(last_sequence: u64) -> Hello {
    Hello {
        runner_name: NAME.to_owned(),
        phase: RunnerPhase::Listening.into(),
        last_sequence,
        ..Hello::default()
    }
}

/// Has the runner registered as GitHub would, and the assignment sent.
pub(super) async fn minted(world: &World) {
    world
        .until("enrolled", |runner| runner.stage() == Stage::Enrolled)
        .await;
    let (launch, name) = (LaunchId::from(LAUNCH), RunnerName::from(NAME));
    world
        .vault
        .put(launch.clone(), name.clone(), "c2VjcmV0".into());
    let minted = Event::Minted {
        launch,
        name,
        id: GithubRunnerId(7),
    };
    world.engine.submit(minted).await.unwrap();
}

/// A request for a certificate, and the key that it is for.
pub(super) struct Request(pub(super) KeyPair);

impl Request {
    pub(super) fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    pub(super) fn message(&self) -> RenewCertificateRequest {
        let csr = CertificateParams::default()
            .serialize_request(&self.0)
            .unwrap();
        RenewCertificateRequest {
            csr_der: csr.der().to_vec(),
        }
    }

    pub(super) fn identity(&self, certificate: &[u8]) -> ClientIdentity {
        let key = PrivatePkcs8KeyDer::from(self.0.serialize_der()).into();
        (CertificateDer::from(certificate.to_vec()), key)
    }
}
