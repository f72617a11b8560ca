//! Instances whose agent is this test: what a host could do that is not what we take it for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use muster_proto::v1::agent_service_client::AgentServiceClient;
use muster_proto::v1::enroll_proof::Evidence;
use muster_proto::v1::enroll_request::Step as Asked;
use muster_proto::v1::enroll_response::Step as Answer;
use muster_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{
    EnrollBegin, EnrollIssued, EnrollProof, EnrollRequest, EnrollResponse, Heartbeat, Hello,
    JoinTokenEvidence, RenewCertificateRequest, RunnerPhase, SessionRequest, SessionResponse,
};
use muster_tests::world::{Options, World, pool, wait_for};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::tls::{self, Identity};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two heartbeats.
const BEAT: Duration = Duration::from_millis(200);

/// A world whose instances start a script in place of the agent. It puts down what it was told, and
/// does nothing more.
pub(crate) struct Hosts {
    pub(crate) world: World,
    told: TempDir,
}

/// What an agent is told at its start.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Invitation {
    enroll_url: String,
    agents_url: String,
    trust_anchors_pem: String,
    pub(crate) join_token: String,
    pub(crate) instance_id: String,
}

impl Hosts {
    /// Starts with this many instances, in a pool that can have no more; `tables` are further tables
    /// of the configuration.
    pub(crate) async fn start(count: u32, tables: &str) -> (Self, Vec<Invitation>) {
        let told = tempfile::tempdir().unwrap();
        let options = Options {
            pools: pool("linux", &["self-hosted", "linux"], count, count),
            tables: tables.to_owned(),
            agent_binary: Some(script(&told)),
            // Three times as long an agent may be silent.
            heartbeat_interval: Duration::from_secs(5),
            ..Options::default()
        };
        let world = World::start(options).await.unwrap();
        let hosts = Self { world, told };
        let invitations = hosts.invitations(usize::try_from(count).unwrap()).await;
        (hosts, invitations)
    }

    /// Waits until so many instances were told what an agent is told.
    pub(crate) async fn invitations(&self, count: usize) -> Vec<Invitation> {
        let look = async || {
            let found = self.all_told();
            Ok((found.len() >= count).then(|| found.into_values().collect()))
        };
        wait_for("instances", PATIENCE, look).await.unwrap()
    }

    fn all_told(&self) -> BTreeMap<String, Invitation> {
        let entries = std::fs::read_dir(self.told.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .map(|invitation: Invitation| (invitation.instance_id.clone(), invitation))
            .collect()
    }
}

fn script(told: &TempDir) -> PathBuf {
    let script = told.path().join("agent");
    let place = told.path().display();
    let text = format!(
        "#!/bin/sh\nset -e\nplace='{place}'/$MUSTER_INSTANCE_ID\ncat >\"$place.part\"\n\
         mv \"$place.part\" \"$place.json\"\nexec sleep 600\n"
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("https://").unwrap().parse().unwrap()
}

impl Invitation {
    pub(crate) fn anchor(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.trust_anchors_pem.as_bytes()).unwrap()
    }

    /// All that the agent was told to trust.
    pub(crate) fn anchors(&self) -> Vec<CertificateDer<'static>> {
        let anchors = CertificateDer::pem_slice_iter(self.trust_anchors_pem.as_bytes());
        anchors.map(Result::unwrap).collect()
    }

    pub(crate) fn agents(&self) -> SocketAddr {
        address(&self.agents_url)
    }

    /// A new connection to the enrolment listener.
    pub(crate) fn enrolment(&self) -> EnrollmentServiceClient<Channel> {
        let config = tls::client(&self.anchor(), None);
        EnrollmentServiceClient::new(tls::channel(address(&self.enroll_url), config))
    }

    /// A new connection to the agents' listener.
    pub(crate) fn agent(&self, identity: &Identity) -> AgentServiceClient<Channel> {
        let config = tls::client(&self.anchor(), Some(identity.clone()));
        AgentServiceClient::new(tls::channel(self.agents(), config))
    }

    /// Enrols as an honest agent does.
    pub(crate) async fn enrol(&self) -> Result<Enrolled, Status> {
        let mut exchange = Exchange::begin(self.enrolment()).await?;
        let request = Request::new();
        let issued = exchange.prove(&request, &self.join_token).await?;
        Ok(request.with(issued))
    }
}

/// A certificate request, and the key that it is for.
pub(crate) struct Request {
    key: KeyPair,
    pub(crate) csr: Vec<u8>,
}

impl Request {
    pub(crate) fn new() -> Self {
        Self::of(&CertificateParams::default())
    }

    pub(crate) fn of(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let csr = params.serialize_request(&key).unwrap().der().to_vec();
        Self { key, csr }
    }

    pub(crate) fn with(self, issued: EnrollIssued) -> Enrolled {
        let identity = Identity::new(issued.certificate_der.clone(), &self.key);
        Enrolled { issued, identity }
    }
}

/// An identity that was given.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) issued: EnrollIssued,
    pub(crate) identity: Identity,
}

/// An enrolment that has its challenge.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) say: mpsc::Sender<EnrollRequest>,
    answers: Streaming<EnrollResponse>,
    pub(crate) nonce: Vec<u8>,
}

impl Exchange {
    pub(crate) async fn begin(client: EnrollmentServiceClient<Channel>) -> Result<Self, Status> {
        let begin = EnrollBegin {
            agent_version: "0.1.0".to_owned(),
        };
        let (say, mut answers) = open(client, Some(Asked::Begin(begin))).await?;
        match answers.message().await?.and_then(|answer| answer.step) {
            Some(Answer::Challenge(challenge)) => Ok(Self {
                say,
                answers,
                nonce: challenge.nonce,
            }),
            other => panic!("{other:?} in place of a challenge"),
        }
    }

    pub(crate) fn proof(&self, request: &Request, token: &str) -> EnrollProof {
        EnrollProof {
            csr_der: request.csr.clone(),
            nonce: self.nonce.clone(),
            evidence: Some(Evidence::JoinToken(JoinTokenEvidence {
                token: token.to_owned(),
            })),
        }
    }

    pub(crate) async fn prove(
        &mut self,
        request: &Request,
        token: &str,
    ) -> Result<EnrollIssued, Status> {
        self.send(self.proof(request, token)).await
    }

    pub(crate) async fn send(&mut self, proof: EnrollProof) -> Result<EnrollIssued, Status> {
        let step = Some(Asked::Proof(proof));
        // A stream that has ended says why when it is read.
        let _ = self.say.send(EnrollRequest { step }).await;
        match self.next().await? {
            Some(Answer::Issued(issued)) => Ok(issued),
            other => panic!("{other:?} in place of an identity"),
        }
    }

    /// The next answer; none when the stream has ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer>, Status> {
        let answer = timeout(PATIENCE, self.answers.message());
        let answer = answer.await.expect("an answer to the proof")?;
        Ok(answer.and_then(|answer| answer.step))
    }
}

/// Opens an enrolment, with a first message or without.
pub(crate) async fn open(
    mut client: EnrollmentServiceClient<Channel>,
    first: Option<Asked>,
) -> Result<(mpsc::Sender<EnrollRequest>, Streaming<EnrollResponse>), Status> {
    let (say, said) = mpsc::channel(4);
    if first.is_some() {
        say.send(EnrollRequest { step: first }).await.unwrap();
    }
    let answers = client.enroll(ReceiverStream::new(said)).await?;
    Ok((say, answers.into_inner()))
}

/// A stream of an agent.
#[derive(Debug)]
pub(crate) struct Session {
    say: mpsc::Sender<SessionRequest>,
    hears: Streaming<SessionResponse>,
}

impl Session {
    /// Opens a stream and says hello; `runner_name` is the assignment that the agent claims to have. It is alive until
    /// it is dropped. Answers once the coordinator has sent its settings.
    pub(crate) async fn open(
        mut client: AgentServiceClient<Channel>,
        runner_name: &str,
    ) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(4);
        let hello = Hello {
            agent_version: "0.1.0".to_owned(),
            runner_name: runner_name.to_owned(),
            phase: if runner_name.is_empty() {
                RunnerPhase::Unassigned.into()
            } else {
                RunnerPhase::Listening.into()
            },
            ..Hello::default()
        };
        let message = Some(Said::Hello(hello));
        say.send(SessionRequest { message }).await.unwrap();
        let hears = client.session(ReceiverStream::new(said)).await?;
        let mut session = Self {
            say,
            hears: hears.into_inner(),
        };
        match session.next().await? {
            Some(Told::Configure(_)) => {
                session.stay_alive();
                Ok(session)
            }
            other => panic!("{other:?} in place of the settings"),
        }
    }

    async fn next(&mut self) -> Result<Option<Told>, Status> {
        let message = timeout(PATIENCE, self.hears.message());
        let message = message.await.expect("a message")?;
        Ok(message.and_then(|message| message.message))
    }

    /// Reads until the assignment comes; answers the name of the runner.
    pub(crate) async fn assigned(&mut self) -> String {
        loop {
            if let Told::Assignment(assignment) = self.next().await.unwrap().unwrap() {
                return assignment.runner_name;
            }
        }
    }

    fn stay_alive(&self) {
        let say = self.say.clone();
        tokio::spawn(async move {
            while beat(&say).await {
                tokio::time::sleep(BEAT).await;
            }
        });
    }

    /// Reads to the end; answers the status that ended the stream.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.hears.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::new(Code::Ok, "ended well"),
                Err(status) => return status,
            }
        }
    }
}

/// Sends a heartbeat; tells whether the stream takes it.
async fn beat(say: &mpsc::Sender<SessionRequest>) -> bool {
    let message = Some(Said::Heartbeat(Heartbeat::default()));
    say.send(SessionRequest { message }).await.is_ok()
}

/// Asks for a new certificate.
pub(crate) async fn renew(
    mut client: AgentServiceClient<Channel>,
    request: Request,
) -> Result<Identity, Status> {
    let csr_der = request.csr;
    let asked = RenewCertificateRequest { csr_der };
    let renewed = client.renew_certificate(asked).await?.into_inner();
    Ok(Identity::new(renewed.certificate_der, &request.key))
}
