//! One certificate authority replaces another while the coordinator runs: its certificate is added, its key
//! takes over, the old certificate is dropped.

use std::time::Duration;

use muster_proto::v1::{ListPoolsRequest, TerminateRunnerRequest};
use muster_tests::fakes::aws::ParameterKind;
use muster_tests::fakes::github::{Conclusion, JobId, JobSpec, Status};
use muster_tests::world::{CA_CERTIFICATE, CA_KEY, CaPair, Compute, Options, World, wait_for};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tonic::Code;

use crate::newcomer::{Hosts, Request, Session, renew};
use crate::tls;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const TAKEN_UP: &str = "a new certificate authority is in use";

/// The lines of the coordinator's log that have all of these texts.
fn said(world: &World, texts: &[&str]) -> usize {
    let log = std::fs::read_to_string(world.coordinator.log()).unwrap();
    let lines = log.lines();
    lines
        .filter(|line| texts.iter().all(|text| line.contains(text)))
        .count()
}

async fn wait_until_said(world: &World, texts: &[&str], times: usize) {
    let look = async || Ok((said(world, texts) >= times).then_some(()));
    if let Err(error) = wait_for(&texts.join(", "), PATIENCE, look).await {
        panic!("{error}\n{}", world.coordinator.log_tail());
    }
}

fn queue(world: &World, name: &str, step: &str) -> JobId {
    let labels = ["self-hosted", "linux"];
    let job = JobSpec::new("octo-org/hello", name, &labels).step(step);
    world.github.queue_job(job)
}

async fn reaches(world: &World, job: JobId, status: Status) -> Option<Conclusion> {
    let reached = world.github.wait_job(job, status, PATIENCE).await;
    let reached = reached.unwrap_or_else(|error| {
        panic!("{error}\n{}", world.coordinator.log_tail());
    });
    reached.conclusion
}

#[tokio::test]
async fn an_authority_in_ssm_is_replaced_under_a_running_job() {
    let options = Options {
        compute: Compute::Ec2,
        secrets_in_ssm: true,
        // Agents renew every five seconds.
        identity: "agent_certificate_ttl = \"10s\"".to_owned(),
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    let cloud = world.cloud.as_ref().unwrap();
    let put = |name: &str, secret: &str| {
        let aws = &cloud.aws;
        aws.put_parameter(&aws.home(), name, ParameterKind::Secret, secret);
    };
    let go = world.dir().join("go");
    let long = format!("until [ -e '{}' ]; do sleep 0.05; done", go.display());
    let long = queue(&world, "long", &long);
    reaches(&world, long, Status::InProgress).await;
    let (old, new) = (
        cloud.authority.clone(),
        CaPair::new("the second authority").unwrap(),
    );

    // Both are trusted, by the coordinator, by the images from now on, and by agents once they have renewed.
    put(CA_CERTIFICATE, &old.and(&new));
    wait_until_said(&world, &[TAKEN_UP, "\"trusted\":2"], 1).await;
    cloud.build_images(world.dir(), &old.and(&new)).unwrap();
    wait_until_said(&world, &["a certificate was renewed", "\"trusted\":2"], 1).await;
    // This operator trusts both, too, and has a certificate of the old one.
    let mut alice = world.operator("alice").await.unwrap();

    // The new one issues.
    put(CA_KEY, &new.key);
    wait_until_said(&world, &[TAKEN_UP, "\"same_issuer\":false"], 1).await;
    let issuing = fingerprint_in_use(&world);
    let renewed = ["a certificate was renewed", &issuing];
    wait_until_said(&world, &renewed, 1).await;
    let pools = ListPoolsRequest::default();
    alice.client.list_pools(pools).await.unwrap();
    world.operator("alice").await.unwrap();
    let between = queue(&world, "between", "echo built");
    let done = reaches(&world, between, Status::Completed).await;
    assert_eq!(done, Some(Conclusion::Success));

    // The old one is dropped, and what it issued is worth nothing.
    put(CA_CERTIFICATE, &new.certificate);
    wait_until_said(&world, &[TAKEN_UP, "\"dropped\":1"], 1).await;
    cloud.build_images(world.dir(), &new.certificate).unwrap();
    let refused = wait_for("the end of an operator's connection", PATIENCE, || {
        let mut client = alice.client.clone();
        async move { Ok(client.list_pools(pools).await.err()) }
    });
    let refused = refused.await.unwrap();
    // The reason, or a connection that was cut before the next call.
    let cut = std::error::Error::source(&refused).is_some();
    assert!(refused.code() == Code::Unauthenticated || cut, "{refused}");
    let mut again = world.operator("alice").await;
    if let Ok(alice) = &mut again {
        // With TLS 1.3 a client learns with its first call that its certificate was not taken.
        alice.client.list_pools(pools).await.unwrap_err();
    }
    let mut bob = world.operator("bob").await.unwrap();
    bob.client.list_pools(pools).await.unwrap();

    // The host of the long job never lost its coordinator.
    std::fs::write(&go, "").unwrap();
    let done = reaches(&world, long, Status::Completed).await;
    assert_eq!(done, Some(Conclusion::Success));
    let dropped = "the authority of its certificate was dropped";
    assert_eq!(said(&world, &[dropped, "\"role\":\"Agent\""]), 0);
    assert_ne!(said(&world, &[dropped, "\"role\":\"Operator\""]), 0);
    let last = queue(&world, "last", "echo built");
    let done = reaches(&world, last, Status::Completed).await;
    assert_eq!(done, Some(Conclusion::Success));
    let log = std::fs::read_to_string(world.coordinator.log()).unwrap();
    for secret in [&old.key, &new.key] {
        let mut lines = secret.lines().filter(|line| !line.starts_with("---"));
        assert!(!lines.any(|line| log.contains(line)), "a key in the log");
    }
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}

/// The authority that the log names last.
fn fingerprint_in_use(world: &World) -> String {
    let log = std::fs::read_to_string(world.coordinator.log()).unwrap();
    let line = log.lines().rfind(|line| line.contains(TAKEN_UP)).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["issuing"].as_str().unwrap().to_owned()
}

/// An authority in files, and the configuration that names them.
struct Files(TempDir);

impl Files {
    fn of(pair: &CaPair) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.put(&pair.certificate, &pair.key);
        files
    }

    fn put(&self, certificates: &str, key: &str) {
        std::fs::write(self.0.path().join("ca.pem"), certificates).unwrap();
        std::fs::write(self.0.path().join("ca.key"), key).unwrap();
    }

    fn tables(&self) -> String {
        let path = |name: &str| self.0.path().join(name);
        format!(
            "[identity]\nca_certificate_file = {:?}\nca_key_file = {:?}\n\
             [secrets]\nreload_interval = \"100ms\"\n",
            path("ca.pem"),
            path("ca.key")
        )
    }
}

fn der(pair: &CaPair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

#[tokio::test]
async fn what_an_agent_has_open_outlives_two_steps_and_what_it_has_renewed_all_three() {
    let (old, new, wrong) = (
        CaPair::new("Muster authority").unwrap(),
        // As the old one is called: the key alone tells them apart.
        CaPair::new("Muster authority").unwrap(),
        CaPair::new("Muster authority").unwrap(),
    );
    let files = Files::of(&old);
    let (hosts, invitations) = Hosts::start(2, &files.tables()).await;
    let world = &hosts.world;
    let invitation = &invitations[0];
    let first = invitation.enrol().await.unwrap().identity;
    let agent = invitation.agent(&first);
    let mut session = Session::open(agent.clone(), "").await.unwrap();
    session.assigned().await;

    files.put(&old.and(&new), &old.key);
    wait_until_said(world, &[TAKEN_UP], 1).await;
    // A key that is neither's is told again and again, and changes nothing.
    files.put(&old.and(&new), &wrong.key);
    let unusable = [
        "a new certificate authority can't be used",
        "the key belongs to none of the 2 certificates",
    ];
    wait_until_said(world, &unusable, 2).await;
    renew(agent.clone(), Request::new()).await.unwrap();

    files.put(&old.and(&new), &new.key);
    wait_until_said(world, &[TAKEN_UP], 2).await;
    // The coordinator shows a certificate of the new authority, and takes what the old one issued.
    let agents = invitation.agents();
    let as_first = || Some(first.clone());
    tls::shake(agents, &tls::client(&der(&new), as_first()))
        .await
        .unwrap();
    let foreign = tls::shake(agents, &tls::client(&der(&old), as_first())).await;
    foreign.unwrap_err();
    let second = renew(agent.clone(), Request::new()).await.unwrap();
    // A host that is launched now is told to trust both.
    let mut operator = world.operator("alice").await.unwrap();
    let request = TerminateRunnerRequest {
        name: invitations[1].instance_id.clone(),
        reason: "test".to_owned(),
    };
    operator.client.terminate_runner(request).await.unwrap();
    let all = hosts.invitations(3).await;
    let known = |id: &String| invitations.iter().any(|one| one.instance_id == *id);
    let late = all.iter().find(|one| !known(&one.instance_id)).unwrap();
    assert_eq!(late.anchors(), [der(&new), der(&old)]);
    let enrolled = late.enrol().await.unwrap();
    let anchors = [der(&new), der(&old)].map(|anchor| anchor.to_vec());
    assert_eq!(enrolled.issued.trust_anchors_der, anchors);

    // Up to here the stream has been one.
    assert_eq!(said(world, &["agent's stream ended"]), 0);
    files.put(&new.certificate, &new.key);
    let ended = session.end().await;
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(ended.message().contains("not trusted any more"), "{ended}");
    renew(agent, Request::new()).await.unwrap_err();
    let client = tls::client(&der(&new), as_first());
    tls::shake(agents, &client).await.unwrap_err();
    let client = tls::client(&der(&new), Some(second));
    tls::shake(agents, &client).await.unwrap();
    let channel = tls::channel(agents, client);
    let client = muster_proto::v1::agent_service_client::AgentServiceClient::new(channel);
    Session::open(client, "").await.unwrap();
}

#[tokio::test]
async fn half_an_authority_starts_no_coordinator_and_issues_nothing() {
    let (old, new) = (CaPair::new("a").unwrap(), CaPair::new("b").unwrap());
    let files = Files::of(&old);
    let options = Options {
        tables: files.tables(),
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    world.coordinator.stop(PATIENCE).await.unwrap();
    files.put(&old.certificate, &new.key);
    let refused = world.coordinator.start_again().await.unwrap_err();
    let told = "the key belongs to none of the 1 certificates";
    assert!(refused.to_string().contains(told), "{refused}");

    let carol = world.dir().join("carol");
    let refused = world.coordinator.issue_operator_cert("carol", &carol).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(told), "{refused}");
    files.put(&new.and(&old), &old.key);
    world.coordinator.start_again().await.unwrap();
    world.operator("carol").await.unwrap();
    let anchors = std::fs::read_to_string(world.dir().join("operator-carol/ca.crt")).unwrap();
    assert_eq!(anchors, old.and(&new));
}
