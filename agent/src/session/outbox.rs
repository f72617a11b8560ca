//! Events of the supervisor that the coordinator has yet to acknowledge.

use std::collections::VecDeque;

use muster_proto::v1::AgentEvent;
use muster_proto::v1::agent_event::Kind;

/// Most events that wait. An instance's life has a dozen; more is a coordinator that asks in circles.
const CAPACITY: usize = 256;

/// The queue. Events leave it when they are acknowledged, not when they are sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    events: VecDeque<AgentEvent>,
    /// How many of `events`, from the front, were sent on the present stream.
    sent: usize,
    last_sequence: u64,
}

impl Outbox {
    /// Adds an event of the supervisor, which may say one again. If the queue is full, the oldest event
    /// that isn't the end is lost.
    pub(crate) fn push(&mut self, event: AgentEvent) {
        if event.sequence <= self.last_sequence {
            return;
        }
        if self.events.len() >= CAPACITY {
            let lost = self
                .events
                .iter()
                .position(|event| !matches!(event.kind, Some(Kind::RunnerFinished(_))));
            if let Some(index) = lost {
                tracing::warn!("too many events wait for the coordinator; the oldest is lost");
                self.events.remove(index);
                if index < self.sent {
                    self.sent -= 1;
                }
            }
        }
        self.last_sequence = event.sequence;
        self.events.push_back(event);
    }

    /// Whether there is something to send on the present stream.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.events.len()
    }

    /// The next event to send on the present stream.
    pub(crate) fn next_unsent(&mut self) -> Option<AgentEvent> {
        let event = self.events.get(self.sent)?.clone();
        self.sent += 1;
        Some(event)
    }

    /// A new stream: everything that waits is to be sent again, in order.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Events up to this number are durable.
    pub(crate) fn acknowledge(&mut self, through: u64) {
        while self.events.front().is_some_and(|e| e.sequence <= through) {
            self.events.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::agent_event::Kind;
    use muster_proto::v1::{AgentEvent, DrainReport, RunnerFinished};
    use proptest::prelude::*;

    use super::{CAPACITY, Outbox};

    fn event(sequence: u64) -> AgentEvent {
        AgentEvent {
            sequence,
            at: None,
            kind: Some(Kind::DrainReport(DrainReport::default())),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        SayAgain,
        Send,
        Reconnect,
        Acknowledge,
    }

    proptest! {
        /// A model coordinator that knows what it has received and acknowledges some of it.
        #[test]
        fn each_event_arrives_in_order_whatever_breaks(
            steps in prop::collection::vec(prop_oneof![
                3 => Just(Step::Push),
                1 => Just(Step::SayAgain),
                4 => Just(Step::Send),
                1 => Just(Step::Reconnect),
                2 => Just(Step::Acknowledge),
            ], 0..200),
        ) {
            let mut outbox = Outbox::default();
            let (mut last, mut received, mut acknowledged) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Push => {
                        last += 1;
                        outbox.push(event(last));
                    }
                    Step::SayAgain => (acknowledged + 1..=last).for_each(|n| outbox.push(event(n))),
                    Step::Send => {
                        if let Some(event) = outbox.next_unsent() {
                            prop_assert!(event.sequence <= received + 1, "a gap");
                            received = received.max(event.sequence);
                        }
                    }
                    Step::Reconnect => outbox.rewind(),
                    Step::Acknowledge => {
                        outbox.acknowledge(received);
                        acknowledged = received;
                    }
                }
            }
            outbox.rewind();
            while let Some(event) = outbox.next_unsent() {
                prop_assert!(event.sequence <= received + 1, "a gap");
                received = received.max(event.sequence);
            }
            prop_assert_eq!(received, last);
            outbox.acknowledge(u64::MAX);
            prop_assert!(outbox.events.is_empty() && !outbox.has_unsent());
        }
    }

    #[test]
    fn a_full_queue_keeps_the_end_and_its_bound() {
        let mut outbox = Outbox::default();
        outbox.push(AgentEvent {
            kind: Some(Kind::RunnerFinished(RunnerFinished::default())),
            ..event(1)
        });
        for number in 0..2 * CAPACITY as u64 {
            outbox.push(event(2 + number));
        }
        assert_eq!(outbox.events.len(), CAPACITY);
        assert!(matches!(
            outbox.next_unsent().unwrap().kind,
            Some(Kind::RunnerFinished(_))
        ));
    }
}
