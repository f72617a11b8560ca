//! Enrolment of one instance, by the rules of the agent.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use muster_proto::v1::enroll_proof::Evidence;
use muster_proto::v1::enroll_request::Step as Said;
use muster_proto::v1::enroll_response::Step as Told;
use muster_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::v1::{EnrollBegin, EnrollProof, EnrollRequest, EnrollResponse};
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::backoff::Backoff;
use super::evidence::evidence;
use super::ground::Ground;
use super::identity::{Identity, Request};
use super::line::connect;
use crate::fakes::aws::{Credentials, Instance};

// As the agent has them (`agent/src/enroll/mod.rs`).
const BACKOFF_BASE: Duration = Duration::from_millis(200);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(30);

/// Why a try failed.
enum Failed {
    /// The coordinator refuses this instance for good.
    Refused(String),
    /// Another try may succeed.
    Again(String),
    /// It is not the coordinator's fault, or it breaks the protocol.
    Broken(anyhow::Error),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let text = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::Unauthenticated
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::Unimplemented => Self::Refused(text),
            _ => Self::Again(text),
        }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Enrols, as often as it takes: all tries have one key.
pub(super) async fn enrol(
    ground: &Ground,
    instance: &Instance,
    random: &mut StdRng,
) -> anyhow::Result<Identity> {
    let began = Instant::now();
    let request = Request::new()?;
    let credentials = ground
        .aws
        .identity_credentials(&instance.id)
        .context("the instance has no credentials")?;
    let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
    loop {
        let failed = match timeout(ATTEMPT, attempt(ground, instance, &credentials, &request)).await
        {
            Ok(Ok(identity)) => {
                ground.figures.enrolled(began);
                return Ok(identity);
            }
            Ok(Err(failed)) => failed,
            Err(_) => Failed::Again(format!("no answer within {ATTEMPT:?}")),
        };
        match failed {
            Failed::Refused(why) => bail!("the coordinator refuses to enrol it: {why}"),
            Failed::Broken(error) => return Err(error.context("enrol")),
            Failed::Again(why) => ground.figures.ended(format!("enrolment: {why}")),
        }
        if began.elapsed() >= ground.plan.patience {
            bail!("it could not enrol within {:?}", ground.plan.patience);
        }
        sleep(backoff.next(random)).await;
    }
}

async fn attempt(
    ground: &Ground,
    instance: &Instance,
    credentials: &Credentials,
    request: &Request,
) -> Result<Identity, Failed> {
    let address = ground.world.coordinator.addresses().enroll;
    let (channel, _fate) = connect(None, address, ground.anchor.tls(None)?)
        .await
        .map_err(|_| Failed::Again("no connection".to_owned()))?;
    let (steps, stream) = mpsc::channel(2);
    let begin = Said::Begin(EnrollBegin {
        agent_version: env!("CARGO_PKG_VERSION").into(),
    });
    send(&steps, begin).await?;
    let mut answers = EnrollmentServiceClient::new(channel)
        .enroll(ReceiverStream::new(stream))
        .await?
        .into_inner();
    let Told::Challenge(challenge) = next(&mut answers).await? else {
        return Err(anyhow!("no challenge came first").into());
    };
    let region = &instance.place.region;
    let evidence = evidence(credentials, region, &challenge, &request.csr_der)?;
    let proof = Said::Proof(EnrollProof {
        csr_der: request.csr_der.clone(),
        nonce: challenge.nonce,
        evidence: Some(Evidence::AwsSts(evidence)),
    });
    send(&steps, proof).await?;
    let Told::Issued(issued) = next(&mut answers).await? else {
        return Err(anyhow!("a second challenge came").into());
    };
    if issued.instance_id != instance.id {
        let other = &issued.instance_id;
        return Err(anyhow!("it was given a certificate for {other}").into());
    }
    Ok(request.accept(
        &ground.anchor,
        issued.certificate_der,
        &issued.trust_anchors_der,
        issued.not_after,
    )?)
}

async fn send(steps: &mpsc::Sender<EnrollRequest>, step: Said) -> Result<(), Failed> {
    let request = EnrollRequest { step: Some(step) };
    let sent = steps.send(request).await;
    sent.map_err(|_| Failed::Again("the stream has ended".to_owned()))
}

async fn next(answers: &mut Streaming<EnrollResponse>) -> Result<Told, Failed> {
    let answer = answers.message().await?;
    let answer = answer.ok_or_else(|| Failed::Again("the stream ended early".to_owned()))?;
    let step = answer.step.context("an answer without a step")?;
    Ok(step)
}
