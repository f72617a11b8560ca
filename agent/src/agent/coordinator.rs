//! What passes between the agent and its coordinator.

use std::time::Duration;

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_request::Message as Sent;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Assignment, AssignmentAccepted, Configure, Hello, RunnerPhase};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Agent, request};
use crate::sample;
use crate::session::link::{Closed, Link, LinkEvent};
use crate::supervise::descendants::worker_exists;
use crate::supervise::jit;
use crate::supervise::machine::Input;
use crate::wire;

/// Messages that may wait for the connection.
const REQUESTS: usize = 16;
/// Bounds of the heartbeat's cadence.
const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
/// Bounds of the lead and the grace.
const STOPPING: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(3600));
/// Longest wait that a coordinator may ask for before a new connection.
const RECONNECT_MAX: Duration = Duration::from_secs(120);
/// Longest name of a runner that is accepted, in bytes.
const RUNNER_NAME_MAX: usize = 256;

impl Agent {
    /// Opens a link, with all that is not acknowledged to be sent on it.
    pub(super) fn connect(&mut self) {
        let (requests, stream) = mpsc::channel(REQUESTS);
        // The queue is new, so it has room.
        if requests
            .try_send(request(Sent::Hello(self.hello())))
            .is_err()
        {
            tracing::error!("no room for the hello");
        }
        self.outbox.rewind();
        let (generation, cancel) = self.keeper.begin(requests);
        let link = Link {
            remote: self.config.agents.clone(),
            identity: self.identity.clone(),
            generation,
        };
        let events = self.link_events.sender.clone();
        self.tasks.spawn(link.hold(stream, events, cancel));
    }

    fn hello(&self) -> Hello {
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            runner_version: self.runner_version.clone(),
            os: std::env::consts::OS.into(),
            arch: match std::env::consts::ARCH {
                "x86_64" => "X64".into(),
                "aarch64" => "ARM64".into(),
                other => other.to_ascii_uppercase(),
            },
            kernel_started_at: sample::kernel_started_at().map(wire::timestamp),
            agent_started_at: Some(wire::timestamp(self.started_at)),
            enrolled_at: Some(wire::timestamp(self.enrolled_at)),
            phase: self.machine.phase().into(),
            runner_name: self.runner_name.clone().unwrap_or_default(),
            last_sequence: self.outbox.last_sequence(),
            ..Hello::default()
        }
    }

    pub(super) fn on_link(&mut self, generation: u64, event: LinkEvent) {
        if !self.keeper.is_present(generation) {
            return;
        }
        match event {
            LinkEvent::Open => {
                tracing::info!("session opened");
                self.keeper.opened();
                self.unwanted = false;
                self.heartbeat_at = Instant::now();
            }
            LinkEvent::Message(message) => {
                self.keeper.heard();
                self.on_message(message);
            }
            LinkEvent::Renewed(identity) => {
                tracing::info!("certificate renewed");
                self.identity = identity;
                self.keeper.reconnect(Duration::ZERO, Instant::now());
            }
            LinkEvent::Closed(closed) => self.on_closed(&closed),
        }
    }

    pub(super) fn on_closed(&mut self, closed: &Closed) {
        let wait = self.keeper.closed(closed, Instant::now());
        tracing::warn!(reason = %closed, ?wait, "session ended");
        if matches!(closed, Closed::Denied(_)) && !self.machine.busy() {
            self.unwanted = true;
            self.shut_down("the coordinator no longer accepts this instance".into());
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Configure(configure) => self.on_configure(&configure),
            Message::Acknowledge(acknowledge) => {
                self.outbox.acknowledge(acknowledge.through_sequence);
            }
            Message::Assignment(assignment) => self.on_assignment(assignment),
            Message::Drain(drain) => {
                tracing::info!(reason = drain.reason, "draining");
                self.draining = true;
                let deadline = drain.deadline.as_ref().and_then(wire::time);
                self.feed(Input::Drain {
                    deadline: deadline.map(|time| self.instant(time)),
                    worker: worker_exists(),
                });
            }
            Message::Retire(retire) => {
                tracing::info!(reason = retire.reason, "the registration is gone");
                self.draining = true;
                self.feed(Input::Retire {
                    worker: worker_exists(),
                });
            }
            Message::Shutdown(shutdown) => {
                self.shut_down(format!("the coordinator asked for it: {}", shutdown.reason));
            }
            Message::Reconnect(reconnect) => {
                let within = wire::span(reconnect.within.as_ref(), Duration::ZERO, RECONNECT_MAX);
                self.keeper
                    .reconnect(within.unwrap_or_default(), Instant::now());
            }
        }
    }

    fn on_configure(&mut self, configure: &Configure) {
        let span = |value: &Option<_>, (least, most)| wire::span(value.as_ref(), least, most);
        if let Some(interval) = span(&configure.heartbeat_interval, HEARTBEAT) {
            self.heartbeat_interval = interval;
            self.heartbeat_at = self.heartbeat_at.min(Instant::now() + interval);
        }
        self.feed(Input::Settings {
            interrupt_lead: span(&configure.interrupt_lead, STOPPING),
            stop_grace: span(&configure.stop_grace, STOPPING),
        });
    }

    /// Takes the one assignment of this agent's life.
    fn on_assignment(&mut self, assignment: Assignment) {
        let name = assignment.runner_name;
        match &self.runner_name {
            Some(held) if *held == name => {
                tracing::debug!(runner = name, "the assignment came again");
                return;
            }
            Some(held) => {
                tracing::error!(runner = name, held, "a second assignment is refused");
                return;
            }
            None => {}
        }
        if self.draining || self.machine.phase() != RunnerPhase::Unassigned {
            tracing::warn!(runner = name, "an assignment after the drain is refused");
            return;
        }
        if name.is_empty() || name.len() > RUNNER_NAME_MAX {
            tracing::error!(
                length = name.len(),
                "an assignment without a usable name is refused"
            );
            return;
        }
        self.runner_name = Some(name.clone());
        match jit::check(assignment.encoded_jit_config.into()) {
            Ok(config) => {
                tracing::info!(runner = name, "assignment accepted");
                self.report(Kind::AssignmentAccepted(AssignmentAccepted {
                    runner_name: name,
                }));
                self.start_runner(config);
            }
            Err(error) => {
                let reason = format!("the runner's configuration is not usable: {error}");
                self.feed(Input::StartFailed(reason));
            }
        }
    }
}
