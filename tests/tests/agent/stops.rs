//! What stops a runner: drains, notices, signals and the longest life.

use std::time::{Duration, Instant};

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_request::Message as Sent;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Configure, InterruptionKind, RunnerOutcome, RunnerPhase, Shutdown};
use nix::sys::signal::Signal;

use muster_tests::scripted::coordinator::Coordinator;
use muster_tests::scripted::host::{Host, unique_instance_id};
use muster_tests::scripted::metadata::Metadata;
use muster_tests::scripted::until;

use crate::steps::{assigned, drain, quick, quickly_reached, reached, report, retire};

#[tokio::test]
async fn sigint_reaches_the_runner_and_no_other_process() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    // The child would notice a SIGINT to the group: it has the default disposition and a trap.
    let host = Host::new(
        &coordinator,
        r#"
        trap 'echo Exiting...; touch ../listener-got-it; exit 0' INT
        env --default-signal=INT sh -c '
            trap "touch ../child-got-it" INT; touch ../child-ready
            while :; do sleep 0.05; done' &
        while [ ! -e ../child-ready ]; do sleep 0.01; done
        listen; idle
        "#,
    );
    let (agent, mut session) = reached(&host, &mut coordinator, RunnerPhase::Listening).await;
    session.send(drain(None)).await;
    let look = report(&mut session).await;
    assert!(
        look.idle && look.phase() == RunnerPhase::Listening,
        "{look:?}"
    );
    session.send(retire()).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Unused);
    assert_eq!(finished.exit_code, Some(0));
    assert!(agent.exit().await.success());
    assert!(host.path("listener-got-it").exists());
    assert!(!host.path("child-got-it").exists());
}

#[tokio::test]
async fn a_busy_runner_is_told_to_stop_before_the_deadline() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        trap 'echo Exiting...; complete b Canceled; exit 0' INT
        listen; run_job b; idle
        "#,
    );
    let (agent, mut session) = quickly_reached(&host, &mut coordinator, RunnerPhase::Running).await;
    session.send(drain(Some(Duration::from_millis(800)))).await;
    let look = report(&mut session).await;
    assert!(
        !look.idle && look.phase() == RunnerPhase::Running,
        "{look:?}"
    );
    let finished = session.finished().await;
    assert_eq!(
        finished.outcome(),
        RunnerOutcome::Interrupted,
        "{finished:?}"
    );
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_runner_that_ignores_the_signal_is_killed_after_its_grace() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "trap '' INT; listen; run_job b; idle");
    let (agent, mut session) = quickly_reached(&host, &mut coordinator, RunnerPhase::Running).await;
    session
        .send(Message::Shutdown(Shutdown {
            reason: "test".into(),
        }))
        .await;
    let finished = session.finished().await;
    assert_eq!(
        finished.outcome(),
        RunnerOutcome::Interrupted,
        "{finished:?}"
    );
    assert_eq!(finished.signal, Some(9));
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_worker_that_slipped_in_is_busy_and_is_left_to_run() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        listen
        printf '#!/bin/sh\ntouch ../worker; while [ ! -e ../go ]; do sleep 0.02; done\n' > bin/Runner.Worker
        chmod +x bin/Runner.Worker; bin/Runner.Worker; exit 100
        "#,
    );
    let (agent, mut session) = reached(&host, &mut coordinator, RunnerPhase::Listening).await;
    until("the worker", || host.path("worker").exists()).await;
    session.send(retire()).await;
    let look = report(&mut session).await;
    assert!(
        !look.idle && look.phase() == RunnerPhase::Running,
        "{look:?}"
    );
    std::fs::write(host.path("go"), "").unwrap();
    assert_eq!(session.finished().await.outcome(), RunnerOutcome::Succeeded);
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn sigterm_ends_an_agent_that_has_no_job() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.send(quick()).await;
    let Sent::Heartbeat(heartbeat) = session.message().await else {
        panic!("no heartbeat")
    };
    assert!(heartbeat.sample.unwrap().memory_total_bytes > 0);
    agent.signal(Signal::SIGTERM);
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Unused);
    assert!(finished.reason.contains("SIGTERM"), "{}", finished.reason);
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_spot_notice_is_reported_and_stops_the_job_in_time() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(
        &coordinator,
        r#"
        trap 'complete b Canceled; exit 0' INT
        listen; run_job b; idle
        "#,
    );
    let metadata = Metadata::start().await;
    host.config["metadata_endpoint"] = format!("http://{}/i-1/", metadata.address).into();
    let (agent, mut session) = reached(&host, &mut coordinator, RunnerPhase::Running).await;
    // A little more than the default lead, and a look every two seconds.
    metadata.publish(Duration::from_secs(48));
    let kind = session
        .take_until(|kind| matches!(kind, Kind::InterruptionNotice(_)))
        .await;
    let Kind::InterruptionNotice(notice) = kind else {
        unreachable!()
    };
    assert_eq!(notice.kind(), InterruptionKind::Spot);
    assert!(notice.deadline.is_some());
    assert!(matches!(session.take().await, Kind::DrainReport(_)));
    // Nobody told the agent to drain: it keeps the deadline by itself.
    let finished = session.finished().await;
    assert_eq!(
        finished.outcome(),
        RunnerOutcome::Interrupted,
        "{finished:?}"
    );
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn hints_and_far_deadlines_are_reported_once_and_leave_the_job_alone() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(
        &coordinator,
        r#"
        listen; run_job b
        while [ -e ../runner ] && [ ! -e ../go ]; do sleep 0.02; done
        complete b Succeeded; exit 100
        "#,
    );
    let metadata = Metadata::start().await;
    host.config["metadata_endpoint"] = format!("http://{}/i-1/", metadata.address).into();
    let (agent, mut session) = reached(&host, &mut coordinator, RunnerPhase::Running).await;
    metadata.publish_at(
        "events/recommendations/rebalance",
        r#"{"noticeTime":"2026-01-01T00:00:00Z"}"#.into(),
    );
    metadata.publish_at(
        "events/maintenance/scheduled",
        r#"[{"EventId":"instance-event-1","Code":"instance-retirement","State":"active",
            "NotBefore":"01 Feb 2099 09:00:43 GMT","Description":"The instance retires"}]"#
            .into(),
    );
    metadata.publish_at("autoscaling/target-lifecycle-state", "Terminated".into());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let kind = session
            .take_until(|kind| matches!(kind, Kind::InterruptionNotice(_)))
            .await;
        let Kind::InterruptionNotice(notice) = kind else {
            unreachable!()
        };
        let deadline = notice.deadline.map(|deadline| deadline.seconds);
        seen.push((notice.kind(), deadline, notice.detail));
    }
    // A look may fall between two publications.
    seen.sort_by_key(|(kind, ..)| *kind);
    let retires = "instance-event-1: instance-retirement from 01 Feb 2099 09:00:43 GMT: \
                   The instance retires";
    let expected = [
        (
            InterruptionKind::Rebalance,
            None,
            "recommended at 2026-01-01T00:00:00Z",
        ),
        (InterruptionKind::Maintenance, Some(4_073_619_643), retires),
        (
            InterruptionKind::Lifecycle,
            None,
            "target lifecycle state Terminated",
        ),
    ];
    assert_eq!(
        seen,
        expected.map(|(kind, time, text)| (kind, time, text.to_owned()))
    );
    std::fs::write(host.path("go"), "").unwrap();
    // Nothing else is said before the end of a job that nobody stopped.
    let Kind::DrainReport(last) = session.take().await else {
        panic!("each notice is followed by a look")
    };
    assert!(!last.idle, "{last:?}");
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_pool_that_allows_more_than_the_image_is_believed() {
    let image = Duration::from_secs(10);
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(&coordinator, "trap 'exit 0' INT; listen; idle");
    host.config["max_lifetime_seconds"] = image.as_secs().into();
    let begun = Instant::now();
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    let span = |span: Duration| Some(span.try_into().unwrap());
    session
        .send(Message::Configure(Configure {
            heartbeat_interval: span(Duration::from_millis(100)),
            lifetime: span(Duration::from_secs(12 * 3600)),
            ..Configure::default()
        }))
        .await;
    while begun.elapsed() < image + Duration::from_secs(1) {
        if let Sent::Event(event) = session.message().await {
            assert!(
                !matches!(event.kind, Some(Kind::RunnerFinished(_))),
                "{event:?}"
            );
        }
    }
    session.send(retire()).await;
    session.finished().await;
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn the_longest_life_ends_a_job_too() {
    // On a busy machine a short life may be over before the job runs; then the next is longer.
    for life in [1, 2, 4, 8, 16] {
        let mut coordinator = Coordinator::start(&unique_instance_id()).await;
        let mut host = Host::new(
            &coordinator,
            "trap 'complete b Canceled; exit 0' INT; listen; run_job b; touch ../runs; idle",
        );
        host.config["max_lifetime_seconds"] = life.into();
        let (agent, mut session) = assigned(&host, &mut coordinator).await;
        let finished = session.finished().await;
        assert!(agent.exit().await.success());
        assert!(
            finished.reason.contains("longest life"),
            "{}",
            finished.reason
        );
        if host.path("runs").exists() {
            assert_eq!(
                finished.outcome(),
                RunnerOutcome::Interrupted,
                "{finished:?}"
            );
            return;
        }
    }
    panic!("no job ran in 16 seconds");
}
