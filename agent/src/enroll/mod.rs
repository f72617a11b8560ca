//! Enrolment: proves which instance this is, and gets a client certificate for it.

mod credentials;
mod signature;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use muster_proto::v1::enroll_proof::Evidence;
use muster_proto::v1::enroll_request::Step;
use muster_proto::v1::enroll_response::Step as Answer;
use muster_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::v1::{
    EnrollBegin, EnrollChallenge, EnrollIssued, EnrollProof, EnrollRequest, EnrollResponse,
    JoinTokenEvidence,
};
use rustls::time_provider::DefaultTimeProvider;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use self::credentials::{CredentialsError, InstanceCredentials, Source};
use crate::backoff::Backoff;
use crate::config::{Attestation, NetworkConfig};
use crate::identity::{Identity, IdentityError, Request};
use crate::steady::Steady;
use crate::tls::{self, TlsError};

/// First ceiling of the wait between two tries.
const BACKOFF_BASE: Duration = Duration::from_millis(200);
/// Last ceiling.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// Longest time for all tries together.
const TOTAL: Duration = Duration::from_secs(300);
/// Longest time for one try. The coordinator may wait ten seconds for STS, and then for EC2.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Length of the challenge's nonce, in bytes.
const NONCE: usize = 32;

/// What enrolment gives.
#[derive(Debug)]
pub(crate) struct Enrolled {
    /// To open the session with.
    pub(crate) identity: Identity,
    /// The instance id that the coordinator knows this machine by.
    pub(crate) instance_id: String,
    /// When.
    pub(crate) at: Timestamp,
}

/// No enrolment.
#[derive(Debug, Error)]
pub(crate) enum EnrollError {
    /// The coordinator said no, and would say so again.
    #[error("the coordinator refuses this instance: {code:?}: {message}")]
    Refused {
        /// How.
        code: Code,
        /// Why.
        message: String,
    },
    /// The coordinator could not be reached, or could not answer now.
    #[error("the coordinator is not available: {0}")]
    Unavailable(String),
    /// The coordinator's answer breaks the protocol.
    #[error("the coordinator's answer is not usable: {0}")]
    Answer(String),
    /// No credentials to sign with. They were waited for.
    #[error("no credentials to prove with: {0}")]
    Credentials(#[from] CredentialsError),
    /// What the coordinator asked for can't be signed.
    #[error("no signature can be made for the coordinator's challenge")]
    Signature,
    /// No key, or no usable certificate.
    #[error("{0}")]
    Identity(#[from] IdentityError),
}

impl EnrollError {
    fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<TlsError> for EnrollError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Connect { .. } => Self::Unavailable(error.to_string()),
            TlsError::Setup(_) => Self::Identity(error.into()),
        }
    }
}

impl From<Status> for EnrollError {
    fn from(status: Status) -> Self {
        match status.code() {
            code @ (Code::Unauthenticated
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::Unimplemented) => Self::Refused {
                code,
                message: status.message().to_owned(),
            },
            code => Self::Unavailable(format!("{code:?}: {}", status.message())),
        }
    }
}

/// Enrols, trying again while the coordinator is not available, for 5 minutes at most.
pub(crate) async fn enroll(config: &NetworkConfig) -> Result<Enrolled, EnrollError> {
    // One key for all tries: should an answer be lost, it is the same request that comes again.
    let request = Request::new()?;
    let mut prover = Prover::new(&config.attestation);
    let end = Instant::now() + TOTAL;
    let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
    loop {
        let means = prover.prepare().await?;
        let error = match timeout(ATTEMPT, attempt(config, &request, &means)).await {
            Ok(Ok(enrolled)) => return Ok(enrolled),
            Ok(Err(error)) => error,
            Err(_) => EnrollError::Unavailable(format!("no answer within {ATTEMPT:?}")),
        };
        let wait = backoff.next();
        if !error.retryable() || Instant::now() + wait >= end {
            return Err(error);
        }
        tracing::warn!(%error, ?wait, "enrolment failed, trying again");
        sleep(wait).await;
    }
}

/// Where the means of proof come from.
enum Prover<'a> {
    JoinToken(&'a SecretString),
    AwsSts(Source<'a>),
}

/// What one try proves with.
enum Means<'a> {
    JoinToken(&'a SecretString),
    AwsSts(InstanceCredentials),
}

impl<'a> Prover<'a> {
    fn new(attestation: &'a Attestation) -> Self {
        match attestation {
            Attestation::JoinToken(token) => Self::JoinToken(token),
            Attestation::AwsSts(source) => Self::AwsSts(Source::new(source)),
        }
    }

    /// Reads what changes with time, waiting for it if need be.
    async fn prepare(&mut self) -> Result<Means<'a>, CredentialsError> {
        Ok(match self {
            Self::JoinToken(token) => Means::JoinToken(token),
            Self::AwsSts(source) => Means::AwsSts(source.read().await?),
        })
    }
}

impl Means<'_> {
    /// The evidence that answers this challenge, for this certificate request and no other.
    fn evidence(&self, challenge: &EnrollChallenge, csr: &[u8]) -> Result<Evidence, EnrollError> {
        match self {
            Self::JoinToken(token) => Ok(Evidence::JoinToken(JoinTokenEvidence {
                token: token.expose_secret().to_owned(),
            })),
            Self::AwsSts(credentials) => {
                // By the coordinator's clock: this host's may not be set yet.
                let at = challenge.server_time.map(SystemTime::try_from);
                let at = at.and_then(Result::ok).unwrap_or_else(SystemTime::now);
                signature::evidence(credentials, challenge, csr, at)
                    .map(Evidence::AwsSts)
                    .ok_or(EnrollError::Signature)
            }
        }
    }
}

async fn attempt(
    config: &NetworkConfig,
    request: &Request,
    means: &Means<'_>,
) -> Result<Enrolled, EnrollError> {
    // By the system's time, which is set while a host starts. No job has begun that could set it otherwise.
    let time = Arc::new(DefaultTimeProvider);
    let tls = tls::client_config(&config.trust_anchors, None, time)?;
    let channel = tls::connect(&config.enroll, tls).await?;
    let (steps, stream) = mpsc::channel(2);
    send(
        &steps,
        Step::Begin(EnrollBegin {
            agent_version: env!("CARGO_PKG_VERSION").into(),
        }),
    )
    .await?;
    let mut answers = EnrollmentServiceClient::new(channel)
        .enroll(ReceiverStream::new(stream))
        .await?
        .into_inner();
    let challenge = match next(&mut answers).await? {
        Answer::Challenge(challenge) if challenge.nonce.len() == NONCE => challenge,
        Answer::Challenge(challenge) => {
            let length = challenge.nonce.len();
            return Err(EnrollError::Answer(format!(
                "a nonce of {length} bytes; expected {NONCE}"
            )));
        }
        Answer::Issued(_) => return Err(EnrollError::Answer("no challenge came first".into())),
    };
    let csr_der = request.csr_der();
    let evidence = means.evidence(&challenge, &csr_der)?;
    let proof = EnrollProof {
        csr_der,
        nonce: challenge.nonce,
        evidence: Some(evidence),
    };
    send(&steps, Step::Proof(proof)).await?;
    match next(&mut answers).await? {
        Answer::Issued(issued) => accept(config, request, issued),
        Answer::Challenge(_) => Err(EnrollError::Answer("a second challenge".into())),
    }
}

async fn send(steps: &mpsc::Sender<EnrollRequest>, step: Step) -> Result<(), EnrollError> {
    let request = EnrollRequest { step: Some(step) };
    steps
        .send(request)
        .await
        .map_err(|_| EnrollError::Unavailable("the stream has ended".into()))
}

async fn next(answers: &mut Streaming<EnrollResponse>) -> Result<Answer, EnrollError> {
    let answer = answers
        .message()
        .await?
        .ok_or_else(|| EnrollError::Unavailable("the stream ended early".into()))?;
    answer
        .step
        .ok_or_else(|| EnrollError::Answer("a message without a known step".into()))
}

fn accept(
    config: &NetworkConfig,
    request: &Request,
    issued: EnrollIssued,
) -> Result<Enrolled, EnrollError> {
    let instance_id = issued.instance_id;
    if instance_id.is_empty() || instance_id.contains(['\0', '=']) {
        return Err(EnrollError::Answer("no usable instance id".into()));
    }
    if let Some(ours) = &config.instance_id
        && *ours != instance_id
    {
        return Err(EnrollError::Answer(format!(
            "a certificate for the instance {instance_id:?}; expected {ours:?}"
        )));
    }
    let identity = request.accept(
        issued.certificate_der,
        issued.trust_anchors_der,
        &config.trust_anchors,
        Steady::start(),
    )?;
    Ok(Enrolled {
        identity,
        instance_id,
        at: Timestamp::now(),
    })
}
