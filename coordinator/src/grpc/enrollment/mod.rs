//! Enrolment: a machine proves which launch it is, and gets its first certificate.

mod aws;
mod facts;
mod join_token;
mod proof;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Event, InstanceId, LaunchId};
use muster_proto::v1::enroll_request::Step as Asked;
use muster_proto::v1::enroll_response::Step as Answer;
use muster_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use muster_proto::v1::{EnrollBegin, EnrollChallenge, EnrollIssued, EnrollRequest, EnrollResponse};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

pub use self::aws::{AwsEnrollment, Describe};
use self::aws::{Signed, Turns};
use self::proof::{Means, check_begin, check_proof};
use super::listen::PeerAddress;
use super::per_address::PerAddress;
use super::time::to_wire;
use crate::clock;
use crate::engine::Engine;
use crate::identity::ca::{Authority, Issued};
use crate::identity::csr::RequestedKey;
use crate::identity::serving::PresentAuthority;
use crate::identity::spiffe::{AgentId, TrustDomain};
use crate::store::Store;
use crate::telemetry::{EnrolmentOutcome, Metrics};

/// How long an exchange may take in all; most of it is for STS, EC2 and the ledger.
const EXCHANGE: Duration = Duration::from_secs(60);
/// Most exchanges at a time; more are told to come back.
const EXCHANGES: usize = 1_024;
/// Most bytes of one message.
const MAX_MESSAGE: usize = 16 * 1024;
/// Bytes of a challenge's nonce.
const NONCE_BYTES: usize = 32;

/// What a machine may hold up that can't enrol, so that it keeps none out that can.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long an exchange may take to begin, and then a challenge may wait for its proof. An agent has
    /// its credentials before it comes, so that both take it milliseconds.
    pub(super) message: Duration,
    /// Exchanges of one address at a time; more are told to come back. A machine has one. Behind a load
    /// balancer that hides addresses all come from a few, each with as many as STS is asked at a time.
    pub(super) per_address: usize,
}

/// The usual patience.
pub(super) const PATIENCE: Patience = Patience {
    message: Duration::from_secs(10),
    per_address: 64,
};

/// Enrols machines.
#[derive(Clone, Debug)]
pub struct Enrollment {
    shared: Arc<Shared>,
}

/// What enrolment works with.
#[derive(Debug)]
pub struct Parts {
    /// The way to the ledger.
    pub engine: Engine,
    /// Where it is kept who has enrolled.
    pub store: Store,
    /// Signs the certificates.
    pub authority: PresentAuthority,
    /// The trust domain of the names in them.
    pub trust_domain: TrustDomain,
    /// The name of the coordinator that the proofs are for. It is in its instances' tags, too.
    pub audience: String,
    /// The figures.
    pub metrics: Metrics,
    /// The exchanges run in these.
    pub tasks: TaskTracker,
    /// How instances of EC2 enrol, if there are any.
    pub aws: Option<AwsEnrollment>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    patience: Patience,
    exchanges: Semaphore,
    addresses: PerAddress,
    turns: Turns,
}

type Answers = mpsc::Sender<Result<EnrollResponse, Status>>;

impl Enrollment {
    /// A service of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self::with_patience(parts, PATIENCE)
    }

    pub(super) fn with_patience(parts: Parts, patience: Patience) -> Self {
        Self {
            shared: Arc::new(Shared {
                parts,
                patience,
                exchanges: Semaphore::new(EXCHANGES),
                addresses: PerAddress::new(patience.per_address),
                turns: Turns::default(),
            }),
        }
    }

    /// The service with its limits, to be put on the enrolment listener.
    #[must_use]
    pub fn into_service(self) -> EnrollmentServiceServer<Self> {
        EnrollmentServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    type EnrollStream = ReceiverStream<Result<EnrollResponse, Status>>;

    async fn enroll(
        &self,
        request: Request<Streaming<EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        // The challenge and one more message or status: sending never waits.
        let (answers, stream) = mpsc::channel(2);
        let peer = request.extensions().get().map(|PeerAddress(peer)| *peer);
        let shared = Arc::clone(&self.shared);
        self.shared.parts.tasks.spawn(async move {
            let exchange = Box::pin(shared.exchange(request.into_inner(), peer, &answers));
            let outcome = tokio::time::timeout(EXCHANGE, exchange)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("the exchange took too long")));
            shared.parts.metrics.enrolment(outcome_of(&outcome));
            let last = outcome.map(|issued| EnrollResponse {
                step: Some(Answer::Issued(issued)),
            });
            // A machine that has left needs no answer.
            let _ = answers.try_send(last);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A machine that may have its certificate.
struct Admitted {
    launch: LaunchId,
    id: AgentId,
    /// Held until the ledger has heard of it.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Shared {
    async fn exchange(
        &self,
        mut requests: Streaming<EnrollRequest>,
        peer: Option<IpAddr>,
        answers: &Answers,
    ) -> Result<EnrollIssued, Status> {
        // None without the listener's word on who calls: then there is nobody to tell from others.
        let _share = match peer.map(|peer| self.addresses.take(peer)) {
            Some(None) => {
                return Err(Status::resource_exhausted(
                    "too many enrolments from this address at a time: come again",
                ));
            }
            share => share,
        };
        let _permit = self
            .exchanges
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("too many enrolments at a time"))?;
        let Some(Asked::Begin(begin)) = self.next(&mut requests, "no begin in time").await? else {
            return Err(Status::invalid_argument("the first message must be begin"));
        };
        check_begin(&begin)?;
        let nonce = nonce()?;
        // By the system's time: what is signed for STS must be of STS's time.
        let now = Timestamp::now();
        let challenge = EnrollResponse {
            step: Some(Answer::Challenge(EnrollChallenge {
                nonce: nonce.to_vec(),
                audience: self.parts.audience.clone(),
                server_time: Some(to_wire(now)),
                expires_at: Some(to_wire(now + self.patience.message)),
            })),
        };
        answers
            .try_send(Ok(challenge))
            .map_err(|_| Status::cancelled("the machine has left"))?;
        let Some(Asked::Proof(proof)) = self.next(&mut requests, "no proof in time").await? else {
            return Err(Status::invalid_argument("the second message must be proof"));
        };
        // All that can be wrong with the request itself comes first: after that, its one use is used.
        let (key, means) = check_proof(&proof, &nonce)?;
        let admitted = match means {
            Means::JoinToken(token) => self.by_join_token(token).await?,
            Means::AwsSts(evidence) => {
                let signed = Signed {
                    evidence,
                    nonce: &nonce,
                    csr_der: &proof.csr_der,
                    key: &key,
                    peer,
                };
                self.by_sts(&signed, answers).await?
            }
        };
        self.admit(&admitted, &key, &begin).await
    }

    /// The next message, if it comes in time.
    async fn next(
        &self,
        requests: &mut Streaming<EnrollRequest>,
        late: &'static str,
    ) -> Result<Option<Asked>, Status> {
        let message = tokio::time::timeout(self.patience.message, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded(late))?;
        Ok(message?.and_then(|request| request.step))
    }

    /// Issues the certificate, and lets it go once the ledger has taken the event.
    async fn admit(
        &self,
        admitted: &Admitted,
        key: &RequestedKey,
        begin: &EnrollBegin,
    ) -> Result<EnrollIssued, Status> {
        let Admitted { launch, id, .. } = admitted;
        let authority = self.parts.authority.get();
        let issued = authority.agent(id, key, clock::now()).map_err(|error| {
            warn!(%launch, %error, "no certificate could be issued");
            Status::internal("the certificate can't be issued")
        })?;
        let instance = InstanceId::new(id.instance());
        let enrolled = Event::Enrolled {
            launch: launch.clone(),
            instance: instance.clone(),
        };
        self.submit(enrolled).await?;
        let known = self.parts.engine.query({
            let (launch, instance) = (launch.clone(), instance.clone());
            move |fleet| {
                let runner = fleet.runner(&launch).filter(|runner| !runner.is_over());
                runner.is_some_and(|runner| runner.instance_id() == Some(&instance))
            }
        });
        if !known.await.map_err(|_| stopping())? {
            warn!(%launch, %instance, "an enrolment came too late for its launch");
            return Err(Status::failed_precondition("the launch is over"));
        }
        info!(
            %launch,
            pool = id.pool(),
            %instance,
            agent_version = begin.agent_version,
            "enrolled"
        );
        Ok(answer(id, &issued, &authority))
    }

    async fn submit(&self, event: Event) -> Result<(), Status> {
        self.parts
            .engine
            .submit(event)
            .await
            .map_err(|_| stopping())
    }
}

fn answer(id: &AgentId, issued: &Issued, authority: &Authority) -> EnrollIssued {
    let anchors = authority.trust_anchors().iter();
    EnrollIssued {
        certificate_der: issued.certificate.to_vec(),
        trust_anchors_der: anchors.map(|anchor| anchor.to_vec()).collect(),
        spiffe_id: id.to_string(),
        not_after: Some(to_wire(issued.not_after)),
        instance_id: id.instance().to_owned(),
    }
}

fn outcome_of<T>(outcome: &Result<T, Status>) -> EnrolmentOutcome {
    let Err(status) = outcome else {
        return EnrolmentOutcome::Enrolled;
    };
    match status.code() {
        Code::AlreadyExists => EnrolmentOutcome::Second,
        Code::Unavailable | Code::ResourceExhausted | Code::Internal => {
            EnrolmentOutcome::Unavailable
        }
        Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => EnrolmentOutcome::BrokenOff,
        _ => EnrolmentOutcome::Refused,
    }
}

fn nonce() -> Result<[u8; NONCE_BYTES], Status> {
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Status::internal("no random bytes"))?;
    Ok(nonce)
}

fn stopping() -> Status {
    Status::unavailable("the coordinator is stopping")
}
