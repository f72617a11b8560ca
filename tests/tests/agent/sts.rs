//! Enrolment of an agent on EC2: it signs with the credentials that its metadata service gives.

use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_proto::v1::RunnerPhase;
use muster_tests::fakes::imds::FakeImds;
use muster_tests::scripted::coordinator::Coordinator;
use muster_tests::scripted::host::{Host, unique_instance_id};
use muster_tests::scripted::until;
use tonic::Status;

const IDLE: &str = "listen; idle";
const SECRETS: [&str; 2] = ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "token-of-"];

/// A host whose agent has no join token, beside its metadata service.
fn host(coordinator: &Coordinator, imds: &FakeImds) -> Host {
    let mut host = Host::new(coordinator, IDLE);
    let id = coordinator.behaviour.instance_id.clone();
    imds.add_instance(&id, "m7i.large", "eu-west-1", false);
    let fields = host.config.as_object_mut().unwrap();
    fields.remove("join_token");
    fields.remove("launch");
    fields.insert("attestation".into(), "aws-sts".into());
    fields.insert("metadata_endpoint".into(), imds.endpoint(&id).into());
    host
}

#[tokio::test]
async fn an_agent_signs_with_the_credentials_of_its_instance_once_they_are_there() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let imds = FakeImds::start().await.unwrap();
    let host = host(&coordinator, &imds);
    imds.delay_credentials(&coordinator.behaviour.instance_id, 3);
    let _agent = host.start().await;
    let session = coordinator.session().await;
    assert_eq!(session.hello.phase(), RunnerPhase::Unassigned);
    let signed = coordinator.behaviour.signed.lock().unwrap().clone();
    let [(evidence, csr)] = signed.as_slice() else {
        panic!("one proof: {}", signed.len())
    };
    assert_eq!(evidence.region, "eu-west-1");
    assert_eq!(evidence.access_key_id, "ASIAIOSFODNN7EXAMPLE");
    assert!(evidence.session_token.starts_with("token-of-"));
    assert_eq!(evidence.signature.len(), 64);
    assert!(!csr.is_empty());
    let log = host.read("log");
    for secret in SECRETS.into_iter().chain([evidence.signature.as_str()]) {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn an_agent_comes_again_while_the_coordinator_cannot_check() {
    let unavailable = [Status::unavailable("STS can't be reached")];
    let id = unique_instance_id();
    let mut coordinator = Coordinator::with(&id, Duration::from_secs(3600), unavailable).await;
    let imds = FakeImds::start().await.unwrap();
    let host = host(&coordinator, &imds);
    let _agent = host.start().await;
    coordinator.session().await;
    let enrolments = &coordinator.behaviour.enrolments;
    assert_eq!(enrolments.load(Ordering::SeqCst), 2);
    assert_eq!(coordinator.behaviour.signed.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_agent_that_is_refused_ends_and_says_why() {
    for refusal in [
        Status::already_exists("this instance has enrolled before"),
        Status::unauthenticated("the evidence is not accepted"),
        Status::failed_precondition("the ledger has no such instance"),
    ] {
        let message = refusal.message().to_owned();
        let id = unique_instance_id();
        let coordinator = Coordinator::with(&id, Duration::from_secs(3600), [refusal]).await;
        let imds = FakeImds::start().await.unwrap();
        let host = host(&coordinator, &imds);
        let agent = host.start().await;
        assert_eq!(agent.exit().await.code(), Some(1));
        assert!(host.read("log").contains(&message), "{}", host.read("log"));
        let enrolments = &coordinator.behaviour.enrolments;
        assert_eq!(enrolments.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_agent_without_credentials_waits_and_asks_nobody() {
    let coordinator = Coordinator::start(&unique_instance_id()).await;
    let imds = FakeImds::start().await.unwrap();
    let host = host(&coordinator, &imds);
    let id = coordinator.behaviour.instance_id.clone();
    const CREDENTIALS: &str =
        "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
    imds.unset(&id, CREDENTIALS);
    let _agent = host.start().await;
    until("some reads", || imds.reads(&id, CREDENTIALS) > 3).await;
    let enrolments = &coordinator.behaviour.enrolments;
    assert_eq!(enrolments.load(Ordering::SeqCst), 0);
}
