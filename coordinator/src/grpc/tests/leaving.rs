//! Agents that leave while what they said is unread.

use futures::{StreamExt as _, stream};
use muster_core::Outcome;
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{
    AgentEvent, Heartbeat, RunnerFinished, RunnerOutcome, RunnerPhase, SessionRequest,
};
use rstest::rstest;

use super::stream::{phase, returning};
use super::*;
use crate::grpc::authorize::Validity;
use crate::grpc::sample::agent_id;

fn event(sequence: u64, kind: Option<Kind>) -> SessionRequest {
    SessionRequest {
        message: Some(Said::Event(AgentEvent {
            sequence,
            at: None,
            kind,
        })),
    }
}

async fn with_an_idle_host() -> (World, Agents) {
    let mut idle = booting();
    idle.work = Work::Idle;
    let world = World::with(vec![idle]).await;
    let agents = Agents::new(
        world.engine.clone(),
        world.presence.clone(),
        world.serving.authority(),
        AgentSettings::default(),
        world.stop.clone(),
        TaskTracker::new(),
    );
    (world, agents)
}

#[rstest]
#[case::before_anything_is_read(false)]
#[case::while_an_event_waits(true)]
#[tokio::test]
async fn the_last_word_of_an_agent_that_left_in_an_outage_counts(#[case] reads: bool) {
    let (world, agents) = with_an_idle_host().await;
    let (say, said) = mpsc::channel(8);
    let said = ReceiverStream::new(said).map(Ok);
    let id = agent_id();
    let opened = agents.simulated(&id, Validity::for_ever(), said);
    let mut told = opened.await.unwrap();
    let hello = SessionRequest {
        message: Some(Said::Hello(returning(0))),
    };
    for message in [hello, event(1, None)] {
        say.send(message).await.unwrap();
    }
    let mut last = None;
    while !matches!(last, Some(Told::Acknowledge(_))) {
        last = told.recv().await.unwrap().unwrap().message;
    }

    let leaving = async {
        let finished = Kind::RunnerFinished(RunnerFinished {
            outcome: RunnerOutcome::Failed.into(),
            ..RunnerFinished::default()
        });
        say.send(event(2, phase(RunnerPhase::Running)))
            .await
            .unwrap();
        while reads && say.capacity() < say.max_capacity() {
            tokio::task::yield_now().await;
        }
        say.send(event(3, Some(finished))).await.unwrap();
        drop(told);
    };
    world.while_nothing_is_stored(leaving).await;
    let failed = |runner: &Runner| {
        let outcome = Some(Outcome::Failed);
        matches!(&runner.work, Work::Over { outcome: it, .. } if *it == outcome)
    };
    world.until("over", failed).await;
}

#[tokio::test]
async fn one_that_has_left_is_not_heard_for_ever() {
    let (world, agents) = with_an_idle_host().await;
    let hello = Said::Hello(returning(0));
    let heartbeats = stream::repeat(Said::Heartbeat(Heartbeat::default()));
    let said = stream::iter([hello]).chain(heartbeats).map(|message| {
        Ok(SessionRequest {
            message: Some(message),
        })
    });
    let id = agent_id();
    let opened = agents.simulated(&id, Validity::for_ever(), said);
    let mut told = opened.await.unwrap();
    told.recv().await.unwrap().unwrap();
    drop(told);
    let lost = |runner: &Runner| runner.silent_since.is_some();
    world.until("lost", lost).await;
}
