//! What passes between the front and the coordinator.

use std::time::Duration;

use muster_proto::v1::session_request::Message as Sent;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Configure, Hello};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Front, request};
use crate::local::{Assignment, HEARTBEAT, HostState, Order, STOPPING, Settings};
use crate::sample;
use crate::session::link::{Closed, Link, LinkEvent};
use crate::wire;

/// Messages that may wait for the connection.
const REQUESTS: usize = 16;
/// Longest wait that a coordinator may ask for before a new connection.
const RECONNECT_MAX: Duration = Duration::from_secs(120);

impl Front {
    /// Opens a link, with all that is not acknowledged to be sent on it.
    pub(super) fn connect(&mut self, host: &HostState) {
        let (requests, stream) = mpsc::channel(REQUESTS);
        // The queue is new, so it has room.
        if requests
            .try_send(request(Sent::Hello(self.hello(host))))
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

    fn hello(&self, host: &HostState) -> Hello {
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            runner_version: host.runner_version.clone(),
            os: std::env::consts::OS.into(),
            arch: match std::env::consts::ARCH {
                "x86_64" => "X64".into(),
                "aarch64" => "ARM64".into(),
                other => other.to_ascii_uppercase(),
            },
            kernel_started_at: sample::kernel_started_at().map(wire::timestamp),
            agent_started_at: Some(wire::timestamp(self.started_at)),
            enrolled_at: Some(wire::timestamp(self.enrolled_at)),
            phase: host.phase,
            runner_name: host.runner_name.clone().unwrap_or_default(),
            last_sequence: host.last_sequence,
            runner_spawned_at: host.marks.spawned.map(wire::timestamp),
            listening_at: host.marks.listening.map(wire::timestamp),
            job_started_at: host.marks.job_started.map(wire::timestamp),
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
                self.order(Order::Contact { up: true });
                if let Some(sample) = self.sample {
                    self.send_heartbeat(sample);
                }
            }
            LinkEvent::Message(message) => {
                self.keeper.heard();
                self.on_message(message);
            }
            LinkEvent::Renewed(identity) => {
                tracing::info!("certificate renewed");
                self.identity = identity;
                self.keep_identity();
                self.keeper.reconnect(Duration::ZERO, Instant::now());
                self.order(Order::Contact { up: false });
            }
            LinkEvent::Closed(closed) => self.on_closed(&closed),
        }
    }

    pub(super) fn on_closed(&mut self, closed: &Closed) {
        let wait = self.keeper.closed(closed, Instant::now());
        tracing::warn!(reason = %closed, ?wait, "session ended");
        self.order(Order::Contact { up: false });
        if matches!(closed, Closed::Denied(_)) {
            self.order(Order::Unwanted);
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Configure(configure) => self.on_configure(&configure),
            Message::Acknowledge(acknowledge) => {
                let through = acknowledge.through_sequence;
                self.outbox.acknowledge(through);
                self.order(Order::Acknowledge { through });
            }
            Message::Assignment(assignment) => self.order(Order::Assign(Assignment {
                runner_name: assignment.runner_name,
                jit_config: assignment.encoded_jit_config.into(),
            })),
            Message::Drain(drain) => {
                tracing::info!(reason = drain.reason, "told to drain");
                let deadline = drain.deadline.as_ref().and_then(wire::time);
                self.order(Order::Drain { deadline });
            }
            Message::Retire(retire) => {
                tracing::info!(reason = retire.reason, "told that the registration is gone");
                self.order(Order::Retire);
            }
            Message::Shutdown(shutdown) => self.order(Order::Shutdown {
                reason: shutdown.reason,
            }),
            Message::Reconnect(reconnect) => {
                let within = wire::span(reconnect.within.as_ref(), Duration::ZERO, RECONNECT_MAX);
                self.keeper
                    .reconnect(within.unwrap_or_default(), Instant::now());
                self.order(Order::Contact { up: false });
            }
        }
    }

    fn on_configure(&mut self, configure: &Configure) {
        let span = |value: &Option<_>, (least, most)| wire::span(value.as_ref(), least, most);
        self.order(Order::Settings(Settings {
            heartbeat_interval: span(&configure.heartbeat_interval, HEARTBEAT),
            interrupt_lead: span(&configure.interrupt_lead, STOPPING),
            stop_grace: span(&configure.stop_grace, STOPPING),
        }));
    }
}
