//! What one agent holds and has done, and what follows from what it is told. It waits for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{
    AgentEvent, AssignmentAccepted, DrainReport, Hello, PhaseChanged, ResourceKind,
    ResourceWarning, RunnerFinished, RunnerOutcome, RunnerPhase,
};
use tokio::time::Instant;

use super::plan::Habit;
use super::sample::wire;

/// What follows from a message of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// Nothing more.
    Nothing,
    /// The runner is to be started with this configuration.
    Start(String),
    /// The runner is to be stopped.
    Stop,
    /// The stream is to be closed; the next one waits a random time up to this.
    Reconnect(Duration),
    /// Heartbeats are to come at this interval.
    Beat(Duration),
}

/// News of the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It reached another phase; with the display name of the job, if it runs one.
    Phase(RunnerPhase, Option<String>),
    /// It has ended.
    Finished(RunnerOutcome, &'static str),
}

/// One agent, as the judge sees it too.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) habit: Habit,
    pub(super) phase: RunnerPhase,
    /// Name of the runner that it was made.
    pub(super) runner: Option<String>,
    pub(super) draining: bool,
    /// Whether the instance was ended.
    pub(super) over: bool,
    /// Whether it holds a stream that the coordinator has accepted.
    pub(super) connected: bool,
    /// When streams were accepted.
    pub(super) opened: Vec<Instant>,
    pub(super) enrolled_at: Option<Timestamp>,
    /// Words of the warnings that it gave.
    pub(super) warnings: Vec<String>,
    /// Events that were sent more than once.
    pub(super) resent: u64,
    /// What the coordinator did that it must not do.
    pub(super) wrong: Vec<String>,
    started_at: Timestamp,
    events: VecDeque<AgentEvent>,
    /// How many of `events`, from the front, were sent on the present stream.
    sent: usize,
    last_sequence: u64,
    /// Highest sequence number that was ever sent.
    ever_sent: u64,
    acknowledged: u64,
}

impl Host {
    pub(super) fn new(habit: Habit) -> Self {
        Self {
            habit,
            phase: RunnerPhase::Unassigned,
            runner: None,
            draining: false,
            over: false,
            connected: false,
            opened: Vec::new(),
            enrolled_at: None,
            warnings: Vec::new(),
            resent: 0,
            wrong: Vec::new(),
            started_at: Timestamp::now(),
            events: VecDeque::new(),
            sent: 0,
            last_sequence: 0,
            ever_sent: 0,
            acknowledged: 0,
        }
    }

    /// The first message of a stream. All events that wait are to be sent again on it.
    pub(super) fn hello(&mut self) -> Hello {
        self.sent = 0;
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            runner_version: "2.329.0".into(),
            os: "linux".into(),
            arch: "X64".into(),
            agent_started_at: Some(wire(self.started_at)),
            enrolled_at: self.enrolled_at.map(wire),
            phase: self.phase.into(),
            runner_name: self.runner.clone().unwrap_or_default(),
            last_sequence: self.last_sequence,
            ..Hello::default()
        }
    }

    /// Takes a message.
    pub(super) fn told(&mut self, message: Message) -> Todo {
        match message {
            Message::Configure(configure) => {
                let interval = configure.heartbeat_interval.map(Duration::try_from);
                interval
                    .and_then(Result::ok)
                    .filter(|interval| !interval.is_zero())
                    .map_or(Todo::Nothing, Todo::Beat)
            }
            Message::Acknowledge(acknowledge) => {
                self.acknowledge(acknowledge.through_sequence);
                Todo::Nothing
            }
            Message::Assignment(assignment) => {
                if let Some(held) = &self.runner {
                    let name = &assignment.runner_name;
                    self.wrong
                        .push(format!("it is {held}, and was assigned {name} too"));
                    return Todo::Nothing;
                }
                self.runner = Some(assignment.runner_name.clone());
                self.say(Kind::AssignmentAccepted(AssignmentAccepted {
                    runner_name: assignment.runner_name,
                }));
                self.reached(RunnerPhase::Starting, None);
                Todo::Start(assignment.encoded_jit_config)
            }
            Message::Drain(_) => {
                self.draining = true;
                self.report_look();
                Todo::Nothing
            }
            Message::Retire(_) => {
                self.draining = true;
                if self.has_job() {
                    self.report_look();
                    return Todo::Nothing;
                }
                Todo::Stop
            }
            Message::Shutdown(_) => {
                self.draining = true;
                Todo::Stop
            }
            Message::Reconnect(reconnect) => {
                let within = reconnect.within.map(Duration::try_from);
                Todo::Reconnect(within.and_then(Result::ok).unwrap_or_default())
            }
        }
    }

    /// Takes news of the runner.
    pub(super) fn heard(&mut self, news: News) {
        match news {
            News::Phase(phase, job) => self.reached(phase, job),
            News::Finished(outcome, reason) => {
                if self.phase == RunnerPhase::Finished {
                    return;
                }
                self.phase = RunnerPhase::Finished;
                self.say(Kind::RunnerFinished(RunnerFinished {
                    outcome: outcome.into(),
                    exit_code: Some(0),
                    reason: reason.to_owned(),
                    ..RunnerFinished::default()
                }));
            }
        }
    }

    /// Warns of something that did not happen, in words that are its own.
    pub(super) fn warn(&mut self, detail: String) {
        self.warnings.push(detail.clone());
        self.say(Kind::ResourceWarning(ResourceWarning {
            kind: ResourceKind::Disk.into(),
            detail,
        }));
    }

    /// Whether there is an event to send on the present stream.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.events.len()
    }

    /// The next event to send on the present stream.
    pub(super) fn next_unsent(&mut self) -> Option<AgentEvent> {
        let event = self.events.get(self.sent)?.clone();
        self.sent += 1;
        if event.sequence <= self.ever_sent {
            self.resent += 1;
        }
        self.ever_sent = self.ever_sent.max(event.sequence);
        Some(event)
    }

    /// Whether all that it has to say has been acknowledged.
    pub(super) fn is_heard(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether a job is given to its runner.
    pub(super) fn has_job(&self) -> bool {
        matches!(self.phase, RunnerPhase::Assigned | RunnerPhase::Running)
    }

    fn reached(&mut self, phase: RunnerPhase, job: Option<String>) {
        if self.phase == RunnerPhase::Finished {
            return;
        }
        self.phase = phase;
        self.say(Kind::PhaseChanged(PhaseChanged {
            phase: phase.into(),
            job_display_name: job.unwrap_or_default(),
        }));
    }

    fn report_look(&mut self) {
        let idle = !self.has_job();
        let phase = self.phase.into();
        self.say(Kind::DrainReport(DrainReport { idle, phase }));
    }

    fn say(&mut self, kind: Kind) {
        self.last_sequence += 1;
        self.events.push_back(AgentEvent {
            sequence: self.last_sequence,
            at: Some(wire(Timestamp::now())),
            kind: Some(kind),
        });
    }

    fn acknowledge(&mut self, through: u64) {
        if through > self.ever_sent {
            self.wrong.push(format!(
                "event {through} was acknowledged, and {} is the last that was sent",
                self.ever_sent
            ));
        }
        if through < self.acknowledged {
            self.wrong.push(format!(
                "event {through} was acknowledged after {}",
                self.acknowledged
            ));
        }
        self.acknowledged = self.acknowledged.max(through);
        while self.events.front().is_some_and(|it| it.sequence <= through) {
            self.events.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::{Acknowledge, Assignment, Drain, Retire};

    use super::*;

    fn assigned() -> Host {
        let mut host = Host::new(Habit::Steady);
        let todo = host.told(assignment("muster-a"));
        assert_eq!(todo, Todo::Start("config".to_owned()));
        host
    }

    fn assignment(name: &str) -> Message {
        Message::Assignment(Assignment {
            runner_name: name.to_owned(),
            encoded_jit_config: "config".to_owned(),
        })
    }

    fn acknowledge(through_sequence: u64) -> Message {
        Message::Acknowledge(Acknowledge { through_sequence })
    }

    fn send_all(host: &mut Host) -> Vec<u64> {
        std::iter::from_fn(|| host.next_unsent())
            .map(|event| event.sequence)
            .collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_on_the_next_stream() {
        let mut host = assigned();
        assert_eq!(send_all(&mut host), [1, 2]);
        host.told(acknowledge(1));
        assert_eq!(host.hello().last_sequence, 2);
        assert_eq!(send_all(&mut host), [2]);
        assert_eq!(host.resent, 1);
        host.told(acknowledge(2));
        assert!(host.is_heard() && host.wrong.is_empty());
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_or_a_lower_one_is_wrong() {
        let mut host = assigned();
        host.told(acknowledge(1));
        assert_eq!(host.wrong.len(), 1);
        send_all(&mut host);
        host.told(acknowledge(2));
        host.told(acknowledge(1));
        assert_eq!(host.wrong.len(), 2);
    }

    #[test]
    fn a_second_assignment_is_wrong_and_starts_nothing() {
        let mut host = assigned();
        assert_eq!(host.told(assignment("muster-b")), Todo::Nothing);
        assert_eq!(host.runner.as_deref(), Some("muster-a"));
        assert_eq!(host.wrong.len(), 1);
    }

    #[test]
    fn a_runner_with_a_job_is_not_stopped_when_its_registration_goes() {
        let mut host = assigned();
        host.heard(News::Phase(RunnerPhase::Running, Some("build".to_owned())));
        assert_eq!(host.told(Message::Retire(Retire::default())), Todo::Nothing);
        host.heard(News::Finished(RunnerOutcome::Succeeded, "it is done"));
        assert_eq!(host.told(Message::Drain(Drain::default())), Todo::Nothing);
        assert_eq!(host.told(Message::Retire(Retire::default())), Todo::Stop);
    }
}
