//! Everything that happened and that the coordinator has yet to acknowledge, numbered.

use std::collections::VecDeque;

use jiff::Timestamp;
use muster_proto::v1::AgentEvent;
use muster_proto::v1::agent_event::Kind;
use serde::{Deserialize, Serialize};

use crate::local::Report;
use crate::wire;

/// Most events that wait. An instance's life has a dozen; more is a coordinator that asks in circles.
const CAPACITY: usize = 256;

/// How many numbers a process leaves out, counted from what the one before it has saved: that may have said
/// more than it could save, and the coordinator takes a number that it knows for an event that it has.
const LEFT_OUT: u64 = 1000;

/// The queue. Events leave it when they are acknowledged.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Each a [`Report::Event`], which knows how to be written.
    events: VecDeque<Report>,
    last_sequence: u64,
}

impl Journal {
    /// Adds what happened at `at`, and gives out the event. If the queue is full, the oldest event that
    /// isn't the end is lost.
    pub(super) fn push(&mut self, kind: Kind, at: Timestamp) -> Report {
        if self.events.len() >= CAPACITY
            && let Some(index) = self.events.iter().position(|report| !is_end(report))
        {
            tracing::warn!("too many events wait for the coordinator; the oldest is lost");
            self.events.remove(index);
        }
        self.last_sequence = self.last_sequence.saturating_add(1);
        let event = Report::Event(AgentEvent {
            sequence: self.last_sequence,
            at: Some(wire::timestamp(at)),
            kind: Some(kind),
        });
        self.events.push_back(event.clone());
        event
    }

    /// What an earlier process has saved. New events get numbers that it has not given.
    pub(super) fn of_another_process(mut self) -> Self {
        self.last_sequence = self.last_sequence.saturating_add(LEFT_OUT);
        self
    }

    /// All that wait, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = &Report> {
        self.events.iter()
    }

    /// The highest number given so far.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Whether everything was acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The coordinator has all up to this number.
    pub(super) fn acknowledge(&mut self, through: u64) {
        while self
            .events
            .front()
            .is_some_and(|report| sequence(report) <= through)
        {
            self.events.pop_front();
        }
    }
}

fn is_end(report: &Report) -> bool {
    matches!(
        report,
        Report::Event(AgentEvent {
            kind: Some(Kind::RunnerFinished(_)),
            ..
        })
    )
}

fn sequence(report: &Report) -> u64 {
    match report {
        Report::Event(event) => event.sequence,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use muster_proto::v1::agent_event::Kind;
    use muster_proto::v1::{DrainReport, RunnerFinished};

    use super::{CAPACITY, Journal, LEFT_OUT, sequence};

    #[test]
    fn numbers_go_on_after_a_journey_through_text() {
        let mut journal = Journal::default();
        for _ in 0..3 {
            journal.push(
                Kind::DrainReport(DrainReport::default()),
                Timestamp::UNIX_EPOCH,
            );
        }
        journal.acknowledge(2);
        let text = serde_json::to_string(&journal).unwrap();
        let journal: Journal = serde_json::from_str(&text).unwrap();
        let mut journal = journal.of_another_process();
        assert_eq!(journal.events().map(sequence).collect::<Vec<_>>(), [3]);
        let next = journal.push(
            Kind::DrainReport(DrainReport::default()),
            Timestamp::UNIX_EPOCH,
        );
        // The process before may have given some that it could not save.
        assert_eq!(sequence(&next), 4 + LEFT_OUT);
        journal.acknowledge(4 + LEFT_OUT);
        assert!(journal.is_empty());
        assert_eq!(journal.last_sequence(), 4 + LEFT_OUT);
    }

    #[test]
    fn a_full_queue_keeps_the_end_and_its_bound() {
        let mut journal = Journal::default();
        journal.push(
            Kind::RunnerFinished(RunnerFinished::default()),
            Timestamp::UNIX_EPOCH,
        );
        for _ in 0..2 * CAPACITY {
            journal.push(
                Kind::DrainReport(DrainReport::default()),
                Timestamp::UNIX_EPOCH,
            );
        }
        assert_eq!(journal.events.len(), CAPACITY);
        assert!(super::is_end(&journal.events[0]));
    }
}
