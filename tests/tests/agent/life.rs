//! The agent as one process.

use std::time::{Duration, SystemTime};

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_request::Message as Sent;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{
    Configure, Drain, DrainReport, InterruptionKind, Reconnect, Retire, RunnerOutcome, RunnerPhase,
    Shutdown,
};
use nix::sys::signal::Signal;
use tonic::Status;

use muster_tests::scripted::coordinator::{Coordinator, Session, TOKEN};
use muster_tests::scripted::host::{Host, jit_config, lives, unique_instance_id};
use muster_tests::scripted::metadata::Metadata;
use muster_tests::scripted::until;

fn phase(kind: &Kind) -> Option<(RunnerPhase, &str)> {
    match kind {
        Kind::PhaseChanged(changed) => Some((changed.phase(), changed.job_display_name.as_str())),
        _ => None,
    }
}

async fn reach(session: &mut Session, wanted: RunnerPhase) {
    session
        .take_until(|kind| phase(kind).is_some_and(|(reached, _)| reached == wanted))
        .await;
}

/// Settings with a short grace and a short lead.
fn quick() -> Message {
    let span = |millis| Some(Duration::from_millis(millis).try_into().unwrap());
    Message::Configure(Configure {
        heartbeat_interval: span(200),
        interrupt_lead: span(300),
        stop_grace: span(400),
    })
}

fn retire() -> Message {
    Message::Retire(Retire {
        reason: "test".into(),
    })
}

fn drain(deadline: Option<Duration>) -> Message {
    Message::Drain(Drain {
        reason: "test".into(),
        deadline: deadline.map(|d| (SystemTime::now() + d).into()),
    })
}

async fn report(session: &mut Session) -> DrainReport {
    let kind = session
        .take_until(|kind| matches!(kind, Kind::DrainReport(_)))
        .await;
    let Kind::DrainReport(report) = kind else {
        unreachable!()
    };
    report
}

#[tokio::test]
async fn a_job_runs_and_each_step_is_reported_in_order() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        env > ../environment; pwd > ../directory; umask > ../umask; ls -l /proc/$$/fd > ../files
        perf SessionCreated; listen
        perf MessageReceived_RunnerJobRequest; sleep 0.6
        run_job "build (linux)"; complete "build (linux)" Succeeded; exit 100
        "#,
    );
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.phase(), RunnerPhase::Unassigned);
    assert_eq!(session.hello.last_sequence, 0);
    assert!(session.hello.kernel_started_at.is_some());
    session.assign("runner-1", &jit_config()).await;

    let Kind::AssignmentAccepted(accepted) = session.take().await else {
        panic!("the assignment comes first")
    };
    assert_eq!(accepted.runner_name, "runner-1");
    for wanted in [
        (RunnerPhase::Starting, ""),
        (RunnerPhase::Connected, ""),
        (RunnerPhase::Listening, ""),
        (RunnerPhase::Assigned, ""),
        (RunnerPhase::Running, "build (linux)"),
    ] {
        assert_eq!(phase(&session.take().await), Some(wanted));
    }
    let Kind::RunnerFinished(finished) = session.take().await else {
        panic!("the end comes last")
    };
    assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    assert_eq!(finished.exit_code, Some(100));
    assert_eq!(finished.job_display_name, "build (linux)");
    assert_eq!(finished.console_tail, "");
    assert!(finished.peaks.unwrap().memory_used_bytes > 0);
    assert_eq!(agent.exit().await.code(), Some(0));

    let environment = host.read("environment");
    let id = &coordinator.behaviour.instance_id;
    for entry in [
        format!("ACTIONS_RUNNER_INPUT_JITCONFIG={}", jit_config()),
        "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1".into(),
        "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1".into(),
        "LANG=C.UTF-8".into(),
        format!("MUSTER_INSTANCE_ID={id}"),
    ] {
        assert!(environment.lines().any(|line| line == entry), "{entry}");
    }
    assert!(!environment.contains("AGENT_SECRET") && !environment.contains(TOKEN));
    assert_eq!(
        host.read("directory").trim(),
        host.path("runner").to_str().unwrap()
    );
    assert_eq!(host.read("umask").trim(), "0022");
    let files = host.read("files");
    assert!(
        files.contains("/dev/null") && files.contains("pipe:"),
        "{files}"
    );
    assert!(
        !files.contains("instance.lock") && !files.contains("socket:"),
        "{files}"
    );
    let log = host.read("log");
    assert!(log.contains("\"launch\":\"l-1\""), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains(&jit_config()));
}

#[tokio::test]
async fn a_failed_job_brings_the_console_in_order_without_secrets() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        listen; run_job b
        for n in 1 2 3 4; do echo "out $n"; echo "err $n" >&2; done
        echo "blob=$ACTIONS_RUNNER_INPUT_JITCONFIG"
        echo "key=dGhlLXByaXZhdGUta2V5LW9mLXRlc3Q="
        complete b Failed; exit 102
        "#,
    );
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Failed);
    let tail = finished.console_tail;
    let order = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nout 4\nerr 4\n";
    assert!(tail.contains(order), "{tail}");
    assert!(!tail.contains(&jit_config()), "{tail}");
    assert!(!tail.contains("dGhlLXByaXZhdGUta2V5"), "{tail}");
    agent.exit().await;
}

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
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Listening).await;
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
async fn descendants_that_left_the_session_die_with_the_job() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    // One keeps the mark in its environment; one has dropped it and its parent.
    let host = Host::new(
        &coordinator,
        r#"
        setsid sh -c 'echo $$ > ../escaped; exec sleep 300' > /dev/null 2>&1 &
        (setsid env -i /bin/sh -c 'echo $$ > ../bare; exec /bin/sleep 300' > /dev/null 2>&1 &)
        while [ ! -s ../escaped ] || [ ! -s ../bare ]; do sleep 0.01; done
        listen; run_job b; complete b Succeeded; exit 100
        "#,
    );
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
    session.finished().await;
    assert!(agent.exit().await.success());
    for name in ["escaped", "bare"] {
        let pid = host.read(name);
        assert!(!pid.is_empty() && !lives(&pid), "{name} {pid}");
    }
}

#[tokio::test]
async fn a_launch_runs_once() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "listen; idle");
    let first = host.start().await;
    let mut session = coordinator.session().await;
    assert!(host.start().await.exit().await.success());
    assert!(host.read("log").contains("already running"));
    session.send(retire()).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Unused);
    assert!(first.exit().await.success());
    assert!(host.start().await.exit().await.success());
    assert!(host.read("log").contains("this launch has run before"));
    let enrolments = &coordinator.behaviour.enrolments;
    assert_eq!(enrolments.load(std::sync::atomic::Ordering::SeqCst), 1);
}

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
async fn a_busy_runner_is_told_to_stop_before_the_deadline() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        trap 'echo Exiting...; complete b Canceled; exit 0' INT
        listen; run_job b; idle
        "#,
    );
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.send(quick()).await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
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
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.send(quick()).await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
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
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Listening).await;
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
async fn what_can_not_start_is_reported() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    std::fs::remove_file(host.path("runner/bin/Runner.Listener")).unwrap();
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::StartFailed);
    assert!(
        finished.reason.contains("Runner.Listener"),
        "{}",
        finished.reason
    );
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_configuration_that_reaches_outside_is_refused() {
    use base64::Engine as _;
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "touch ../started");
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    let blob = base64::prelude::BASE64_STANDARD.encode(r#"{"../x":"e30="}"#);
    session.assign("runner-1", &blob).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::StartFailed);
    assert!(agent.exit().await.success());
    assert!(!host.path("started").exists());
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
    let mut coordinator = Coordinator::with(&id, Duration::from_secs(2), []).await;
    let host = Host::new(&coordinator, "");
    let agent = host.start().await;
    let _first = coordinator.session().await;
    let mut second = coordinator.session().await;
    let renewals = &coordinator.behaviour.renewals;
    assert_eq!(renewals.load(std::sync::atomic::Ordering::SeqCst), 1);
    second.send(retire()).await;
    second.finished().await;
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn an_idle_agent_that_lost_its_coordinator_ends() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(&coordinator, "trap 'exit 0' INT; listen; idle");
    host.config["coordinator_lost_seconds"] = 1.into();
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Listening).await;
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
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
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
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
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
async fn a_runner_that_is_told_to_stop_while_the_coordinator_refuses_it_still_ends() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        "trap 'touch ../stopped; exit 0' INT; listen; idle",
    );
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Listening).await;
    session.end(Status::permission_denied("over")).await;
    assert!(agent.exit().await.success());
    assert!(host.path("stopped").exists());
}

#[tokio::test]
async fn a_descendant_that_holds_the_console_delays_nothing_and_hides_nothing() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        (while :; do echo noise; sleep 0.01; done) &
        listen; run_job b; complete b Failed; echo the last line; exit 102
        "#,
    );
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Failed);
    let tail = finished.console_tail;
    assert!(tail.contains("the last line\n"), "{tail}");
    assert!(agent.exit().await.success());
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

#[tokio::test]
async fn the_longest_life_ends_a_job_too() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(
        &coordinator,
        "trap 'complete b Canceled; exit 0' INT; listen; run_job b; idle",
    );
    host.config["max_lifetime_seconds"] = 1.into();
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    let finished = session.finished().await;
    assert_eq!(
        finished.outcome(),
        RunnerOutcome::Interrupted,
        "{finished:?}"
    );
    assert!(
        finished.reason.contains("longest life"),
        "{}",
        finished.reason
    );
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_bad_configuration_is_a_usage_error_that_shows_no_secret() {
    let coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(&coordinator, "");
    host.config["runner_dir"] = "relative".into();
    host.config["surprise"] = 1.into();
    assert_eq!(host.start().await.exit().await.code(), Some(64));
    let text = host.read("log");
    assert!(
        text.contains("runner_dir") && text.contains("surprise"),
        "{text}"
    );
    assert!(!text.contains(TOKEN), "{text}");
    assert!(!host.path("work/started").exists());
}
