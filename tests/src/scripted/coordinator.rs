//! The coordinator's two listeners, with real TLS. The test sees each stream and answers itself.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use muster_proto::v1::enroll_proof::Evidence;
use muster_proto::v1::enroll_request::Step;
use muster_proto::v1::enroll_response::Step as Answer;
use muster_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use muster_proto::v1::session_request::Message as Sent;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{
    Acknowledge, AgentEvent, Assignment, AwsStsEvidence, Configure, EnrollChallenge, EnrollIssued,
    EnrollRequest, EnrollResponse, Hello, RenewCertificateRequest, RenewCertificateResponse,
    RunnerFinished, SessionRequest, SessionResponse,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status, Streaming};

use super::authority::Authority;
use super::within;

/// The name that it gives itself in challenges.
pub const AUDIENCE: &str = "muster.test";
/// The join token that it expects.
pub const TOKEN: &str = "one-time-token-of-this-launch";

/// Life of renewed certificates.
const RENEWED_LIFE: Duration = Duration::from_secs(3600);

/// What it does at enrolment and renewal.
pub struct Behaviour {
    /// Answers to the first enrolments; those after them succeed.
    pub refusals: Mutex<VecDeque<Status>>,
    /// Answers to the next sessions; those after them open.
    pub session_refusals: Mutex<VecDeque<Status>>,
    /// Whether hellos are left without an answer.
    pub silent: AtomicBool,
    /// For how long a certificate lives that is not a renewed one.
    pub certificate_life: Duration,
    /// The instance id that it gives.
    pub instance_id: String,
    /// Counts.
    pub enrolments: AtomicU32,
    /// Counts.
    pub renewals: AtomicU32,
    /// What agents proved themselves with at STS, oldest first, each with its certificate request.
    pub signed: Mutex<Vec<(AwsStsEvidence, Vec<u8>)>>,
}

/// The running listeners.
pub struct Coordinator {
    /// Where to enrol.
    pub enroll: SocketAddr,
    /// Where agents hold their sessions.
    pub agents: SocketAddr,
    /// Its authority's certificate.
    pub authority_pem: String,
    /// What it does, and did.
    pub behaviour: Arc<Behaviour>,
    sessions: mpsc::Receiver<Session>,
    _tasks: JoinSet<()>,
}

/// One stream of an agent.
pub struct Session {
    /// Its first message.
    pub hello: Hello,
    requests: Streaming<SessionRequest>,
    responses: mpsc::Sender<Result<SessionResponse, Status>>,
}

impl Coordinator {
    /// One that accepts everybody.
    pub async fn start(instance_id: &str) -> Self {
        Self::with(instance_id, Duration::from_secs(3600), []).await
    }

    /// One that lets its first certificates live for so long and refuses the first enrolments.
    pub async fn with(
        instance_id: &str,
        certificate_life: Duration,
        refusals: impl IntoIterator<Item = Status>,
    ) -> Self {
        let authority = Arc::new(Authority::new());
        let behaviour = Arc::new(Behaviour {
            refusals: Mutex::new(refusals.into_iter().collect()),
            session_refusals: Mutex::default(),
            silent: AtomicBool::new(false),
            certificate_life,
            instance_id: instance_id.into(),
            enrolments: AtomicU32::new(0),
            renewals: AtomicU32::new(0),
            signed: Mutex::default(),
        });
        let (opened, sessions) = mpsc::channel(8);
        let service = Service {
            authority: authority.clone(),
            behaviour: behaviour.clone(),
            opened,
        };
        let mut tasks = JoinSet::new();
        let (enroll, incoming) = listen(authority.acceptor(false), &mut tasks).await;
        let server = Server::builder().add_service(EnrollmentServiceServer::new(service.clone()));
        tasks.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        let (agents, incoming) = listen(authority.acceptor(true), &mut tasks).await;
        let server = Server::builder().add_service(AgentServiceServer::new(service));
        tasks.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self {
            enroll,
            agents,
            authority_pem: authority.certificate.pem(),
            behaviour,
            sessions,
            _tasks: tasks,
        }
    }

    /// The next stream that an agent opens.
    pub async fn session(&mut self) -> Session {
        within("a session", self.sessions.recv()).await.unwrap()
    }
}

/// The answer to a hello. It leaves all settings as they are.
#[must_use]
pub fn configure() -> Message {
    Message::Configure(Configure::default())
}

impl Session {
    /// Sends a message to the agent.
    pub async fn send(&self, message: Message) {
        let response = SessionResponse {
            message: Some(message),
        };
        self.responses.send(Ok(response)).await.unwrap();
    }

    /// Makes the agent a runner.
    pub async fn assign(&self, runner_name: &str, encoded_jit_config: &str) {
        self.send(Message::Assignment(Assignment {
            runner_name: runner_name.into(),
            encoded_jit_config: encoded_jit_config.into(),
        }))
        .await;
    }

    /// Ends the stream.
    pub async fn end(self, status: Status) {
        self.responses.send(Err(status)).await.unwrap();
    }

    /// The next message.
    pub async fn message(&mut self) -> Sent {
        let request = within("a message of the agent", self.requests.message()).await;
        request.unwrap().unwrap().message.unwrap()
    }

    /// Waits for the next message, whatever it is. False once there is none any more.
    pub async fn said(&mut self) -> bool {
        matches!(self.requests.message().await, Ok(Some(_)))
    }

    /// The next event, not acknowledged; but for warnings, as the machine that runs the tests may be short of something.
    pub async fn event(&mut self) -> AgentEvent {
        loop {
            match self.message().await {
                Sent::Event(event) if !matches!(event.kind, Some(Kind::ResourceWarning(_))) => {
                    return event;
                }
                _ => {}
            }
        }
    }

    /// The next event, acknowledged.
    pub async fn take(&mut self) -> Kind {
        let event = self.event().await;
        self.acknowledge(event.sequence).await;
        event.kind.unwrap()
    }

    /// Acknowledges events.
    pub async fn acknowledge(&self, through_sequence: u64) {
        self.send(Message::Acknowledge(Acknowledge { through_sequence }))
            .await;
    }

    /// Takes events until one fits.
    pub async fn take_until(&mut self, fits: impl Fn(&Kind) -> bool) -> Kind {
        loop {
            let kind = self.take().await;
            if fits(&kind) {
                return kind;
            }
        }
    }

    /// Takes events up to the end.
    pub async fn finished(&mut self) -> RunnerFinished {
        let end = self
            .take_until(|kind| matches!(kind, Kind::RunnerFinished(_)))
            .await;
        let Kind::RunnerFinished(finished) = end else {
            unreachable!()
        };
        finished
    }
}

#[derive(Clone)]
struct Service {
    authority: Arc<Authority>,
    behaviour: Arc<Behaviour>,
    opened: mpsc::Sender<Session>,
}

impl Service {
    fn not_after(&self) -> Option<prost_types::Timestamp> {
        Some((SystemTime::now() + self.behaviour.certificate_life).into())
    }
}

#[tonic::async_trait]
impl EnrollmentService for Service {
    type EnrollStream = ReceiverStream<Result<EnrollResponse, Status>>;

    async fn enroll(
        &self,
        request: Request<Streaming<EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let mut steps = request.into_inner();
        let (answers, stream) = mpsc::channel(2);
        let begin = steps.message().await?.and_then(|m| m.step);
        assert!(matches!(begin, Some(Step::Begin(_))), "{begin:?}");
        self.behaviour.enrolments.fetch_add(1, Ordering::SeqCst);
        if let Some(refusal) = self.behaviour.refusals.lock().unwrap().pop_front() {
            return Err(refusal);
        }
        let service = self.clone();
        let answer = |step| Ok(EnrollResponse { step: Some(step) });
        answers
            .send(answer(Answer::Challenge(EnrollChallenge {
                nonce: vec![7; 32],
                audience: AUDIENCE.into(),
                server_time: Some(SystemTime::now().into()),
                ..EnrollChallenge::default()
            })))
            .await
            .unwrap();
        tokio::spawn(async move {
            let proof = steps.message().await.unwrap().and_then(|m| m.step);
            let Some(Step::Proof(proof)) = proof else {
                panic!("no proof: {proof:?}")
            };
            assert_eq!(proof.nonce, [7; 32]);
            match proof.evidence {
                Some(Evidence::JoinToken(evidence)) => assert_eq!(evidence.token, TOKEN),
                Some(Evidence::AwsSts(evidence)) => {
                    let mut signed = service.behaviour.signed.lock().unwrap();
                    signed.push((evidence, proof.csr_der.clone()));
                }
                None => panic!("no evidence"),
            }
            let issued = EnrollIssued {
                certificate_der: service
                    .authority
                    .sign(&proof.csr_der, service.behaviour.certificate_life),
                trust_anchors_der: vec![service.authority.certificate.der().to_vec()],
                spiffe_id: "spiffe://test/x".into(),
                not_after: service.not_after(),
                instance_id: service.behaviour.instance_id.clone(),
            };
            let _ = answers
                .send(Ok(EnrollResponse {
                    step: Some(Answer::Issued(issued)),
                }))
                .await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let refusal = self.behaviour.session_refusals.lock().unwrap().pop_front();
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|m| m.message);
        let Some(Sent::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (responses, stream) = mpsc::channel(16);
        let session = Session {
            hello,
            requests,
            responses,
        };
        if !self.behaviour.silent.load(Ordering::SeqCst) {
            session.send(configure()).await;
        }
        self.opened.send(session).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        self.behaviour.renewals.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(RenewCertificateResponse {
            certificate_der: self
                .authority
                .sign(&request.into_inner().csr_der, RENEWED_LIFE),
            trust_anchors_der: Vec::new(),
            not_after: Some((SystemTime::now() + RENEWED_LIFE).into()),
        }))
    }
}

/// Binds a port; connections come out of the stream once their handshake is done.
async fn listen(
    acceptor: TlsAcceptor,
    tasks: &mut JoinSet<()>,
) -> (
    SocketAddr,
    impl tokio_stream::Stream<Item = io::Result<Io>> + use<>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connections) = mpsc::channel(8);
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // As the real one does; else each answer waits for an acknowledgement.
            stream.set_nodelay(true).unwrap();
            // A handshake that fails is the agent's to notice.
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = accepted.send(Io(stream)).await;
            }
        }
    });
    (address, ReceiverStream::new(connections).map(Ok))
}

/// tonic knows how to serve TLS of its own making only.
struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
