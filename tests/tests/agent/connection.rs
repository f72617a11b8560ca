//! The agent and its coordinator: enrolment, certificates, and streams that end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Reconnect, RunnerOutcome, RunnerPhase};
use nix::sys::signal::Signal;
use tonic::Status;

use muster_tests::scripted::coordinator::{Coordinator, configure};
use muster_tests::scripted::host::{Host, jit_config, unique_instance_id};
use muster_tests::scripted::until;

use crate::steps::{drain, reached, retire};

#[tokio::test]
async fn events_come_again_in_order_after_a_lost_stream() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        "listen; while [ ! -e ../go ]; do sleep 0.02; done; exit 0",
    );
    let agent = host.start().await;
    let mut first = coordinator.session().await;
    first.assign("runner-1", &jit_config()).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(first.event().await);
    }
    first.acknowledge(1).await;
    // The acknowledgement is in before the stream ends: both are in one stream.
    first.end(Status::unavailable("test")).await;

    let mut second = coordinator.session().await;
    assert_eq!(second.hello.last_sequence, 4);
    assert_eq!(second.hello.phase(), RunnerPhase::Listening);
    assert_eq!(second.hello.runner_name, "runner-1");
    assert_eq!(second.hello.runner_version, "2.336.0");
    assert_eq!(second.event().await, seen[1]);
    assert_eq!(second.event().await, seen[2]);
    assert_eq!(second.event().await, seen[3]);
    // The same assignment again changes nothing, and another one is refused.
    second.assign("runner-1", &jit_config()).await;
    second.assign("runner-2", &jit_config()).await;
    std::fs::write(host.path("go"), "").unwrap();
    let end = second.event().await;
    assert_eq!(end.sequence, 5);
    assert!(matches!(end.kind, Some(Kind::RunnerFinished(_))));
    second.acknowledge(5).await;
    assert!(agent.exit().await.success());
    assert!(host.read("log").contains("a second assignment is refused"));
}

#[tokio::test]
async fn enrolment_waits_for_a_coordinator_that_is_not_available() {
    let id = unique_instance_id();
    let refusals = [Status::unavailable("1"), Status::resource_exhausted("2")];
    let mut coordinator = Coordinator::with(&id, Duration::from_secs(3600), refusals).await;
    let host = Host::new(&coordinator, "");
    let agent = host.start().await;
    let session = coordinator.session().await;
    // An instance that is over is told so, and goes without waiting for an acknowledgement.
    session.end(Status::permission_denied("over")).await;
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_refused_enrolment_is_not_tried_again() {
    let id = unique_instance_id();
    let refusals = [Status::already_exists("this launch has enrolled before")];
    let coordinator = Coordinator::with(&id, Duration::from_secs(3600), refusals).await;
    let host = Host::new(&coordinator, "");
    assert_eq!(host.start().await.exit().await.code(), Some(1));
    let log = host.read("log");
    assert!(log.contains("this launch has enrolled before"), "{log}");
    let enrolments = &coordinator.behaviour.enrolments;
    assert_eq!(enrolments.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_for_another_instance_is_refused() {
    let coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(&coordinator, "");
    host.config["instance_id"] = "i-another".into();
    assert_eq!(host.start().await.exit().await.code(), Some(1));
    assert!(host.read("log").contains("i-another"));
}

#[tokio::test]
async fn a_server_of_another_authority_gets_nothing() {
    let coordinator = Coordinator::start(&unique_instance_id()).await;
    let other = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(&coordinator, "");
    host.config["trust_anchors_pem"] = other.authority_pem.clone().into();
    let agent = host.start().await;
    until("the refusal", || {
        host.read("log").contains("invalid peer certificate")
    })
    .await;
    agent.signal(Signal::SIGTERM);
    assert!(agent.exit().await.success());
    let enrolments = &coordinator.behaviour.enrolments;
    assert_eq!(enrolments.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_certificate_is_renewed_at_half_of_its_life() {
    let id = unique_instance_id();
    let mut coordinator = Coordinator::with(&id, Duration::from_secs(8), []).await;
    let host = Host::new(&coordinator, "");
    let agent = host.start().await;
    let _first = coordinator.session().await;
    let mut second = coordinator.session().await;
    let renewals = &coordinator.behaviour.renewals;
    // On a busy machine it may be renewed again by now.
    assert!(renewals.load(std::sync::atomic::Ordering::SeqCst) >= 1);
    second.send(retire()).await;
    second.finished().await;
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn the_old_stream_serves_until_the_one_with_the_new_certificate_is_answered() {
    let id = unique_instance_id();
    let mut coordinator = Coordinator::with(&id, Duration::from_secs(16), []).await;
    let host = Host::new(&coordinator, "trap 'exit 0' INT; listen; idle");
    let (agent, mut first) = reached(&host, &mut coordinator, RunnerPhase::Listening).await;
    // More than there are tries, until it is enough.
    let refusals = (0..99).map(|n| Status::unavailable(n.to_string()));
    let behaviour = coordinator.behaviour.clone();
    assert_eq!(behaviour.renewals.load(Ordering::SeqCst), 0, "too late");
    *behaviour.session_refusals.lock().unwrap() = refusals.collect();
    behaviour.silent.store(true, Ordering::SeqCst);
    until("refusals", || {
        behaviour.session_refusals.lock().unwrap().len() <= 97
    })
    .await;
    // Both ways.
    first.send(drain(None)).await;
    let report = first.event().await;
    assert!(matches!(report.kind, Some(Kind::DrainReport(_))));
    first.acknowledge(report.sequence).await;
    // This one was sent, but nobody says that it has arrived.
    first.send(drain(None)).await;
    let unheard = first.event().await;
    assert_eq!(unheard.sequence, report.sequence + 1);
    behaviour.session_refusals.lock().unwrap().clear();

    // While a hello waits for its answer, its word on the events must stay true.
    let mut second = coordinator.session().await;
    assert_eq!(second.hello.last_sequence, unheard.sequence);
    assert_eq!(second.hello.phase(), RunnerPhase::Listening);
    first.send(retire()).await;
    until("the outcome", || {
        host.read("log").contains("\"outcome\":\"Unused\"")
    })
    .await;
    second.send(configure()).await;
    while first.said().await {}
    assert_eq!(second.event().await, unheard, "it is said again");
    let next = second.event().await;
    assert_eq!(next.sequence, unheard.sequence + 1);
    second.acknowledge(next.sequence).await;
    if !matches!(next.kind, Some(Kind::RunnerFinished(_))) {
        second.finished().await;
    }
    assert!(agent.exit().await.success());
    let log = host.read("log");
    assert!(!log.contains("session ended"), "{log}");
}

#[tokio::test]
async fn an_old_stream_that_ends_first_is_followed_by_the_new_one() {
    let id = unique_instance_id();
    let mut coordinator = Coordinator::with(&id, Duration::from_secs(8), []).await;
    let host = Host::new(&coordinator, "");
    let agent = host.start().await;
    let first = coordinator.session().await;
    let behaviour = coordinator.behaviour.clone();
    behaviour.silent.store(true, Ordering::SeqCst);
    let mut second = coordinator.session().await;
    // As the coordinator does on its way to the answer.
    first.end(Status::aborted("a newer stream took over")).await;
    until("the end of the old one", || {
        host.read("log").contains("another is on its way")
    })
    .await;
    second.send(configure()).await;
    second.send(retire()).await;
    second.finished().await;
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn an_idle_agent_that_lost_its_coordinator_ends() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(&coordinator, "trap 'exit 0' INT; listen; idle");
    host.config["coordinator_lost_seconds"] = 5.into();
    let (agent, session) = reached(&host, &mut coordinator, RunnerPhase::Listening).await;
    drop(session);
    drop(coordinator);
    until("the end", || {
        host.read("log").contains("out of reach for too long")
    })
    .await;
    until("the outcome", || {
        host.read("log").contains("\"outcome\":\"Unused\"")
    })
    .await;
    // It would wait a minute for somebody to tell.
    agent.signal(Signal::SIGKILL);
    agent.exit().await;
}

#[tokio::test]
async fn a_runner_that_is_told_to_stop_while_the_coordinator_refuses_it_still_ends() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        "trap 'touch ../stopped; exit 0' INT; listen; idle",
    );
    let (agent, session) = reached(&host, &mut coordinator, RunnerPhase::Listening).await;
    session.end(Status::permission_denied("over")).await;
    assert!(agent.exit().await.success());
    assert!(host.path("stopped").exists());
}

#[tokio::test]
async fn the_agent_comes_back_when_it_is_asked_to() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    let agent = host.start().await;
    let first = coordinator.session().await;
    first
        .send(Message::Reconnect(Reconnect {
            within: Some(Duration::from_millis(50).try_into().unwrap()),
        }))
        .await;
    let mut second = coordinator.session().await;
    second.send(retire()).await;
    assert_eq!(second.finished().await.outcome(), RunnerOutcome::Unused);
    assert!(agent.exit().await.success());
}
