//! Messages to an agent, and waits for what it reports.

use std::time::{Duration, SystemTime};

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Configure, Drain, DrainReport, Retire, RunnerPhase};

use muster_tests::scripted::coordinator::{Coordinator, Session};
use muster_tests::scripted::host::{Agent, Host, jit_config};

pub(crate) fn phase(kind: &Kind) -> Option<(RunnerPhase, &str)> {
    match kind {
        Kind::PhaseChanged(changed) => Some((changed.phase(), changed.job_display_name.as_str())),
        _ => None,
    }
}

pub(crate) async fn reach(session: &mut Session, wanted: RunnerPhase) {
    session
        .take_until(|kind| phase(kind).is_some_and(|(reached, _)| reached == wanted))
        .await;
}

/// Settings with a short grace and a short lead.
pub(crate) fn quick() -> Message {
    let span = |millis| Some(Duration::from_millis(millis).try_into().unwrap());
    Message::Configure(Configure {
        heartbeat_interval: span(200),
        interrupt_lead: span(300),
        stop_grace: span(400),
        ..Configure::default()
    })
}

pub(crate) fn retire() -> Message {
    Message::Retire(Retire {
        reason: "test".into(),
    })
}

pub(crate) fn drain(deadline: Option<Duration>) -> Message {
    Message::Drain(Drain {
        reason: "test".into(),
        deadline: deadline.map(|d| (SystemTime::now() + d).into()),
    })
}

pub(crate) async fn report(session: &mut Session) -> DrainReport {
    let kind = session
        .take_until(|kind| matches!(kind, Kind::DrainReport(_)))
        .await;
    let Kind::DrainReport(report) = kind else {
        unreachable!()
    };
    report
}

/// An agent that has been given its assignment, and its session.
pub(crate) async fn assigned(host: &Host, coordinator: &mut Coordinator) -> (Agent, Session) {
    let agent = host.start().await;
    let session = coordinator.session().await;
    session.assign("runner-1", &jit_config()).await;
    (agent, session)
}

/// An agent whose runner has reached a phase.
pub(crate) async fn reached(
    host: &Host,
    coordinator: &mut Coordinator,
    phase: RunnerPhase,
) -> (Agent, Session) {
    let (agent, mut session) = assigned(host, coordinator).await;
    reach(&mut session, phase).await;
    (agent, session)
}

/// The same, with the settings of [`quick`].
pub(crate) async fn quickly_reached(
    host: &Host,
    coordinator: &mut Coordinator,
    phase: RunnerPhase,
) -> (Agent, Session) {
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    session.send(quick()).await;
    session.assign("runner-1", &jit_config()).await;
    reach(&mut session, phase).await;
    (agent, session)
}
