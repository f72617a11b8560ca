//! Enrolment: a machine proves which launch it is, and gets its first certificate.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{AccountName, Event};
use muster_proto::v1::enroll_proof::Evidence;
use muster_proto::v1::enroll_request::Step as Asked;
use muster_proto::v1::enroll_response::Step as Answer;
use muster_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use muster_proto::v1::{
    EnrollBegin, EnrollChallenge, EnrollIssued, EnrollProof, EnrollRequest, EnrollResponse,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::time::to_wire;
use crate::engine::Engine;
use crate::identity::ca::{Authority, Issued};
use crate::identity::csr::RequestedKey;
use crate::identity::join_token::{self, TOKEN_CHARS};
use crate::identity::spiffe::{AgentId, TrustDomain};
use crate::store::{JoinToken, Redeemed, Store};

/// How long a challenge can be answered, and how long an exchange may take in all.
pub const EXCHANGE: Duration = Duration::from_secs(60);
/// How long an exchange may take to begin, so that idle streams don't keep machines out.
const BEGIN: Duration = Duration::from_secs(10);
/// Most exchanges at a time; more are told to come back.
const EXCHANGES: usize = 1_024;
/// Most bytes of one message.
const MAX_MESSAGE: usize = 16 * 1024;
/// Bytes of a challenge's nonce.
const NONCE_BYTES: usize = 32;
/// Most characters of the version that an agent says it has.
const MAX_VERSION: usize = 64;
/// The region of instances that no cloud runs.
const LOCAL_REGION: &str = "local";
/// Enrols machines.
#[derive(Clone, Debug)]
pub struct Enrollment {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    store: Store,
    authority: Arc<Authority>,
    trust_domain: TrustDomain,
    audience: String,
    exchanges: Semaphore,
    tasks: TaskTracker,
}

impl Enrollment {
    /// A service that signs with this authority. `audience` is the name of the coordinator that the
    /// proofs are for. Its exchanges run in `tasks`.
    #[must_use]
    pub fn new(
        engine: Engine,
        store: Store,
        authority: Arc<Authority>,
        trust_domain: TrustDomain,
        audience: String,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                store,
                authority,
                trust_domain,
                audience,
                exchanges: Semaphore::new(EXCHANGES),
                tasks,
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
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            let exchange = shared.exchange(request.into_inner(), &answers);
            let outcome = tokio::time::timeout(EXCHANGE, exchange)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("the exchange took too long")));
            let last = outcome.map(|issued| EnrollResponse {
                step: Some(Answer::Issued(issued)),
            });
            // A machine that has left needs no answer.
            let _ = answers.try_send(last);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Shared {
    async fn exchange(
        &self,
        mut requests: Streaming<EnrollRequest>,
        answers: &mpsc::Sender<Result<EnrollResponse, Status>>,
    ) -> Result<EnrollIssued, Status> {
        let _permit = self
            .exchanges
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("too many enrolments at a time"))?;
        let begin = tokio::time::timeout(BEGIN, next(&mut requests))
            .await
            .map_err(|_| Status::deadline_exceeded("no begin in time"))?;
        let Some(Asked::Begin(begin)) = begin? else {
            return Err(Status::invalid_argument("the first message must be begin"));
        };
        check_begin(&begin)?;
        let nonce = nonce()?;
        let now = Timestamp::now();
        let challenge = EnrollResponse {
            step: Some(Answer::Challenge(EnrollChallenge {
                nonce: nonce.to_vec(),
                audience: self.audience.clone(),
                server_time: Some(to_wire(now)),
                expires_at: Some(to_wire(now + EXCHANGE)),
            })),
        };
        answers
            .try_send(Ok(challenge))
            .map_err(|_| Status::cancelled("the machine has left"))?;
        let Some(Asked::Proof(proof)) = next(&mut requests).await? else {
            return Err(Status::invalid_argument("the second message must be proof"));
        };
        // All that can be wrong with the request itself comes first: after that, the token is used.
        let (key, token) = check_proof(&proof, &nonce)?;
        let token = self.redeem(token).await?;
        let id = self.identity(&token, &self.ledger_row(&token).await?)?;
        let issued = self
            .authority
            .agent(&id, &key, Timestamp::now())
            .map_err(|error| {
                warn!(launch = %token.launch, %error, "no certificate could be issued");
                Status::internal("the certificate can't be issued")
            })?;
        self.enrol(&token, &begin).await?;
        // The certificate leaves only if the ledger took the event.
        if !self.ledger_row(&token).await?.instance_known {
            return Err(Status::failed_precondition("the launch has no instance"));
        }
        Ok(self.answer(&id, &issued))
    }

    async fn redeem(&self, token: &str) -> Result<JoinToken, Status> {
        let redeemed = join_token::redeem(&self.store, token, Timestamp::now())
            .await
            .map_err(|error| {
                warn!(%error, "a join token can't be redeemed");
                Status::unavailable("the token can't be checked at present")
            })?;
        match redeemed {
            Redeemed::Now(token) => Ok(token),
            Redeemed::Already => {
                warn!(
                    security = "second enrolment",
                    "a join token was presented again"
                );
                Err(Status::already_exists("this launch has enrolled before"))
            }
            Redeemed::Expired => Err(Status::unauthenticated("the join token has expired")),
            Redeemed::Unknown => Err(Status::unauthenticated("there is no such join token")),
        }
    }

    /// Which machine the ledger says a token is for. The instance may be there before the news of
    /// its launch: then the token, made by this coordinator for both, joins the two.
    async fn ledger_row(&self, token: &JoinToken) -> Result<Row, Status> {
        let (launch, instance) = (token.launch.clone(), token.instance.clone());
        let row = self.engine.query(move |fleet| {
            let runner = fleet
                .runner(&launch)
                .ok_or("the ledger has no such launch")?;
            if runner.is_over() {
                return Err("the launch is over");
            }
            match runner.instance_id() {
                Some(known) if *known != instance => Err("the launch has another instance"),
                known => Ok(Row {
                    account: runner.account.clone(),
                    instance_known: known.is_some(),
                }),
            }
        });
        row.await.map_err(|_| stopping())?.map_err(|reason| {
            warn!(launch = %token.launch, reason, "an enrolment was refused");
            Status::failed_precondition(reason)
        })
    }

    fn identity(&self, token: &JoinToken, row: &Row) -> Result<AgentId, Status> {
        AgentId::new(
            &self.trust_domain,
            token.pool.as_str(),
            row.account.as_str(),
            LOCAL_REGION,
            token.instance.as_str(),
        )
        .map_err(|error| Status::failed_precondition(error.to_string()))
    }

    async fn enrol(&self, token: &JoinToken, begin: &EnrollBegin) -> Result<(), Status> {
        let enrolled = Event::Enrolled {
            launch: token.launch.clone(),
            instance: token.instance.clone(),
        };
        self.engine.submit(enrolled).await.map_err(|_| stopping())?;
        info!(
            launch = %token.launch,
            pool = %token.pool,
            instance = %token.instance,
            agent_version = begin.agent_version,
            "enrolled"
        );
        Ok(())
    }

    fn answer(&self, id: &AgentId, issued: &Issued) -> EnrollIssued {
        EnrollIssued {
            certificate_der: issued.certificate.to_vec(),
            trust_anchors_der: vec![self.authority.certificate().to_vec()],
            spiffe_id: id.to_string(),
            not_after: Some(to_wire(issued.not_after)),
            instance_id: id.instance().to_owned(),
        }
    }
}

/// What the ledger says of a launch that may enrol.
struct Row {
    account: AccountName,
    instance_known: bool,
}

async fn next(requests: &mut Streaming<EnrollRequest>) -> Result<Option<Asked>, Status> {
    Ok(requests.message().await?.and_then(|request| request.step))
}

fn nonce() -> Result<[u8; NONCE_BYTES], Status> {
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Status::internal("no random bytes"))?;
    Ok(nonce)
}

fn check_begin(begin: &EnrollBegin) -> Result<(), Status> {
    let version = &begin.agent_version;
    if version.len() > MAX_VERSION || !version.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Status::invalid_argument(format!(
            "agent_version: expected up to {MAX_VERSION} printable characters"
        )));
    }
    Ok(())
}

/// The public key and the token of a proof that is well-formed and answers this challenge.
fn check_proof<'a>(
    proof: &'a EnrollProof,
    nonce: &[u8],
) -> Result<(RequestedKey, &'a str), Status> {
    if proof.nonce.len() != NONCE_BYTES {
        return Err(Status::invalid_argument(format!(
            "nonce: expected {NONCE_BYTES} bytes, not {}",
            proof.nonce.len()
        )));
    }
    if proof.nonce != nonce {
        return Err(Status::unauthenticated(
            "the proof answers another challenge",
        ));
    }
    let Some(Evidence::JoinToken(evidence)) = &proof.evidence else {
        return Err(Status::invalid_argument(
            "evidence: expected a join_token; no other kind is known here",
        ));
    };
    if evidence.token.len() != TOKEN_CHARS {
        return Err(Status::unauthenticated("there is no such join token"));
    }
    let key = RequestedKey::from_csr(&proof.csr_der)
        .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
    Ok((key, &evidence.token))
}

fn stopping() -> Status {
    Status::unavailable("the coordinator is stopping")
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::JoinTokenEvidence;
    use rcgen::{CertificateParams, KeyPair};
    use rstest::rstest;
    use tonic::Code;

    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn proof() -> EnrollProof {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        EnrollProof {
            csr_der: request.der().to_vec(),
            nonce: NONCE.to_vec(),
            evidence: Some(Evidence::JoinToken(JoinTokenEvidence {
                token: "t".repeat(TOKEN_CHARS),
            })),
        }
    }

    #[test]
    fn a_good_proof_passes() {
        let proof = proof();
        let (_, token) = check_proof(&proof, &NONCE).unwrap();
        assert_eq!(token.len(), TOKEN_CHARS);
    }

    #[rstest]
    #[case::short_nonce(|proof: &mut EnrollProof| { proof.nonce.pop(); }, Code::InvalidArgument)]
    #[case::no_nonce(|proof: &mut EnrollProof| proof.nonce.clear(), Code::InvalidArgument)]
    #[case::old_nonce(|proof: &mut EnrollProof| proof.nonce[31] = 8, Code::Unauthenticated)]
    #[case::no_evidence(|proof: &mut EnrollProof| proof.evidence = None, Code::InvalidArgument)]
    #[case::no_csr(|proof: &mut EnrollProof| proof.csr_der.clear(), Code::InvalidArgument)]
    #[case::large_csr(|proof: &mut EnrollProof| proof.csr_der = vec![0x30; 8192], Code::InvalidArgument)]
    #[case::long_token(|proof: &mut EnrollProof| {
        let token = "t".repeat(10_000);
        proof.evidence = Some(Evidence::JoinToken(JoinTokenEvidence { token }));
    }, Code::Unauthenticated)]
    fn a_bad_proof_is_refused_before_the_token_is_used(
        #[case] damage: fn(&mut EnrollProof),
        #[case] code: Code,
    ) {
        let mut proof = proof();
        damage(&mut proof);
        let refused = check_proof(&proof, &NONCE).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }

    #[rstest]
    #[case("", true)]
    #[case("0.1.0", true)]
    #[case("0.1.0\nforged log line", false)]
    #[case(
        "0123456789012345678901234567890123456789012345678901234567890123456789",
        false
    )]
    fn an_agent_version_is_short_and_printable(#[case] version: &str, #[case] accepted: bool) {
        let begin = EnrollBegin {
            agent_version: version.to_owned(),
        };
        assert_eq!(check_begin(&begin).is_ok(), accepted);
    }
}
