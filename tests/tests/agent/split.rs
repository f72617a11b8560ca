//! The agent as two processes, a supervisor and a front, against a coordinator in the test.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Drain, Retire, RunnerOutcome, RunnerPhase, Shutdown};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use muster_tests::scripted::coordinator::{Coordinator, Session};
use muster_tests::scripted::host::{
    Agent, Host, agent_command, jit_config, lives, unique_instance_id,
};
use muster_tests::scripted::manager::Manager;
use muster_tests::scripted::{until, within};

/// Runs a job until the file `go` exists.
const JOB: &str = r#"
    trap 'complete b Canceled; exit 0' INT
    echo $$ > ../pid; listen; run_job b
    while [ ! -e ../go ]; do sleep 0.02; done
    complete b Succeeded; exit 100
"#;

async fn supervisor(host: &Host) -> Agent {
    let config = host.supervisor_config();
    host.start_with(agent_command("supervise"), &config).await
}

async fn front(host: &Host) -> Agent {
    host.start_with(agent_command("run"), &host.front_config())
        .await
}

async fn reach(session: &mut Session, wanted: RunnerPhase) {
    session
        .take_until(|kind| matches!(kind, Kind::PhaseChanged(p) if p.phase() == wanted))
        .await;
}

#[tokio::test]
async fn two_processes_run_one_job() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, JOB);
    let (supervisor, front) = (supervisor(&host).await, front(&host).await);
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.phase(), RunnerPhase::Unassigned);
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
    std::fs::write(host.path("go"), "").unwrap();
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    assert!(finished.peaks.unwrap().memory_used_bytes > 0);
    assert!(front.exit().await.success());
    assert!(supervisor.exit().await.success());
    // The runner is the supervisor's child, and nothing of it is left.
    assert!(!lives(&host.read("pid")));
}

#[tokio::test]
async fn a_front_that_is_killed_goes_on_with_its_identity_and_the_job_does_not_notice() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, JOB);
    let manager = Manager::new(host.dir.path());
    let supervisor = left_by_a_front(&mut coordinator, &host, &manager).await;
    let pid = host.read("pid");
    assert!(lives(&pid), "the runner died with the front");
    // What happens meanwhile is not lost.
    std::fs::write(host.path("go"), "").unwrap();
    until("the runner's end", || !lives(&pid)).await;

    let second = host
        .start_with(manager.restart("run"), &host.front_config())
        .await;
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.runner_name, "runner-1");
    assert!(session.hello.job_started_at.is_some());
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    assert!(second.exit().await.success());
    assert!(supervisor.exit().await.success());
    let enrolments = &coordinator.behaviour.enrolments;
    assert_eq!(enrolments.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// Kills a front whose job runs, once it has stored its identity, in the file `stored`. Returns the supervisor.
async fn left_by_a_front(coordinator: &mut Coordinator, host: &Host, manager: &Manager) -> Agent {
    let supervisor = supervisor(host).await;
    let mut command = agent_command("run");
    manager.manage(&mut command);
    let front = host.start_with(command, &host.front_config()).await;
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
    let mut notices = Vec::new();
    until("the stored identity", || {
        notices.extend(manager.notices());
        notices.iter().any(|n| n.contains("FDSTORE=1"))
    })
    .await;
    assert!(notices.iter().any(|n| n.contains("READY=1")), "{notices:?}");
    front.signal(Signal::SIGKILL);
    front.exit().await;
    supervisor
}

#[tokio::test]
async fn a_front_whose_identity_has_expired_does_not_enrol_anew() {
    let id = unique_instance_id();
    let mut coordinator = Coordinator::with(&id, Duration::from_secs(60), []).await;
    let host = Host::new(&coordinator, JOB);
    let manager = Manager::new(host.dir.path());
    let supervisor = left_by_a_front(&mut coordinator, &host, &manager).await;
    let stored = host.path("stored");
    // As if it had been accepted when this machine booted.
    let text = std::fs::read_to_string(&stored).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    kept["accepted"] = json!({"secs": 0, "nanos": 0});
    std::fs::write(&stored, kept.to_string()).unwrap();

    let front = host
        .start_with(manager.restart("run"), &host.front_config())
        .await;
    // This coordinator doesn't mind, and gives it another certificate at once; its second stream is with that one.
    let _first = coordinator.session().await;
    let mut session = coordinator.session().await;
    let enrolments = coordinator.behaviour.enrolments.load(Ordering::SeqCst);
    assert_eq!(enrolments, 1);
    std::fs::write(host.path("go"), "").unwrap();
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    assert!(front.exit().await.success());
    assert!(supervisor.exit().await.success());
}

#[tokio::test]
async fn a_front_that_can_not_read_its_identity_fails_and_does_not_enrol_anew() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, JOB);
    let manager = Manager::new(host.dir.path());
    let supervisor = left_by_a_front(&mut coordinator, &host, &manager).await;
    let stored = host.path("stored");
    std::fs::write(&stored, "not what was stored").unwrap();
    let front = host
        .start_with(manager.restart("run"), &host.front_config())
        .await;
    assert_eq!(front.exit().await.code(), Some(1));
    let enrolments = coordinator.behaviour.enrolments.load(Ordering::SeqCst);
    assert_eq!(enrolments, 1);
    let pid = host.read("pid");
    assert!(lives(&pid));
    std::fs::write(host.path("go"), "").unwrap();
    until("the runner's end", || !lives(&pid)).await;
    supervisor.signal(Signal::SIGKILL);
    supervisor.exit().await;
}

#[tokio::test]
async fn a_front_can_come_before_its_supervisor() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    let front = front(&host).await;
    until("the enrolment", || {
        host.read("log").contains("no supervisor")
    })
    .await;
    let supervisor = supervisor(&host).await;
    let mut session = coordinator.session().await;
    session
        .send(Message::Retire(Retire {
            reason: "test".into(),
        }))
        .await;
    assert_eq!(session.finished().await.outcome(), RunnerOutcome::Unused);
    assert!(front.exit().await.success());
    assert!(supervisor.exit().await.success());
}

#[tokio::test]
async fn a_supervisor_without_a_front_ends_when_no_job_runs() {
    let coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    let mut config = host.supervisor_config();
    config["coordinator_lost_seconds"] = 1.into();
    let supervisor = host.start_with(agent_command("supervise"), &config).await;
    until("the end", || {
        host.read("log").contains("out of reach for too long")
    })
    .await;
    // It would wait a minute for somebody to tell.
    supervisor.signal(Signal::SIGKILL);
    supervisor.exit().await;
}

#[tokio::test]
async fn a_front_that_is_told_to_end_leaves_the_runner_alone() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, JOB);
    let (supervisor, front) = (supervisor(&host).await, front(&host).await);
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
    front.signal(Signal::SIGTERM);
    assert!(front.exit().await.success());
    assert!(lives(&host.read("pid")));
    supervisor.signal(Signal::SIGTERM);
    until("the end", || host.read("log").contains("\"finished\"")).await;
    supervisor.signal(Signal::SIGKILL);
    supervisor.exit().await;
}

#[tokio::test]
async fn a_second_supervisor_of_one_directory_is_refused() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    let first = supervisor(&host).await;
    let front = front(&host).await;
    let mut session = coordinator.session().await;
    assert_eq!(supervisor(&host).await.exit().await.code(), Some(1));
    assert!(host.read("log").contains("instance.lock"));
    session
        .send(Message::Shutdown(Shutdown {
            reason: "test".into(),
        }))
        .await;
    session.finished().await;
    assert!(front.exit().await.success());
    assert!(first.exit().await.success());
}

#[tokio::test]
async fn a_job_learns_of_its_interruption_by_a_file_and_by_its_own_hook() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    // The hook is left by the job, and run beside it.
    let host = Host::new(
        &coordinator,
        r#"
        trap 'complete b Canceled; exit 0' INT
        listen
        printf '#!/bin/sh\ncat "$MUSTER_INTERRUPTION_FILE" > "%s/../../../told"\n' "$RUNNER_PERFLOG" \
            > "$MUSTER_INTERRUPTION_HOOK"
        chmod +x "$MUSTER_INTERRUPTION_HOOK"
        run_job b; idle
        "#,
    );
    let (supervisor, front) = (supervisor(&host).await, front(&host).await);
    let mut session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, RunnerPhase::Running).await;
    // The job has a minute and a quarter before it is told to stop.
    let deadline = SystemTime::now() + Duration::from_secs(120);
    session
        .send(Message::Drain(Drain {
            reason: "test".into(),
            deadline: Some(deadline.into()),
        }))
        .await;
    until("the hook", || host.read("told").ends_with('}')).await;
    let told: serde_json::Value = serde_json::from_str(&host.read("told")).unwrap();
    let time = |name: &str| {
        told[name]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let left = time("instance_ends_at").duration_since(time("job_stops_at"));
    // The default lead, but for the moment between the two readings of the clock.
    assert!((44..=45).contains(&left.as_secs()), "{told}");
    assert!(!told["reason"].as_str().unwrap().is_empty());
    session
        .send(Message::Shutdown(Shutdown {
            reason: "test".into(),
        }))
        .await;
    session.finished().await;
    assert!(front.exit().await.success());
    assert!(supervisor.exit().await.success());
}

/// A word to the supervisor, as the front would say it.
async fn say(socket: &mut OwnedWriteHalf, word: serde_json::Value) {
    let text = word.to_string();
    socket
        .write_u32(text.len().try_into().unwrap())
        .await
        .unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_front_that_was_taken_over_neither_ends_nor_silences_the_supervisor() {
    let coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, JOB);
    let supervisor = supervisor(&host).await;
    let path = host.path("work/supervisor.sock");
    // Its path is there a moment before it listens.
    let connected = within("the socket", async {
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let (mut reports, mut orders) = connected.await.into_split();
    let heard = tokio::spawn(async move {
        let mut words: Vec<String> = Vec::new();
        while words.last().is_none_or(|last| last != r#""done""#) {
            let length = reports.read_u32().await.unwrap();
            let mut text = vec![0; usize::try_from(length).unwrap()];
            reports.read_exact(&mut text).await.unwrap();
            words.push(String::from_utf8(text).unwrap());
        }
        words
    });
    let long = "x".repeat(900_000);
    for seconds in [0, u64::MAX] {
        let span = json!({"secs": seconds, "nanos": 0});
        let settings =
            json!({"heartbeat_interval": span, "interrupt_lead": span, "stop_grace": span});
        say(&mut orders, json!({"settings": settings})).await;
    }
    for number in 0..64 {
        let detail = format!("{number} {long}");
        let notice = json!({"kind": i32::MAX, "deadline": null, "detail": detail});
        say(&mut orders, json!({"notice": notice})).await;
    }
    say(
        &mut orders,
        json!({"drain": {"deadline": "9999-01-01T00:00:00Z"}}),
    )
    .await;
    say(&mut orders, json!({"shutdown": {"reason": long}})).await;
    say(&mut orders, json!({"acknowledge": {"through": u64::MAX}})).await;
    let words = within("the last word", heard).await.unwrap();
    let events = words.iter().filter(|word| word.starts_with(r#"{"event""#));
    // A notice and a look for each that was taken, and the end.
    assert!(events.count() > 64, "{}", words.len());
    let bytes: usize = words.iter().map(String::len).sum();
    assert!(bytes < 1024 * 1024, "{bytes}");
    assert!(supervisor.exit().await.success(), "{}", host.read("log"));
}
