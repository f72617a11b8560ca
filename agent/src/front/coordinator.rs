//! What passes between the front and the coordinator.

use std::time::Duration;

use muster_proto::v1::session_request::Message as Sent;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Configure, Hello};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Front, request};
use crate::local::{Assignment, HEARTBEAT, HostState, LIFETIME, Order, STOPPING, Settings};
use crate::sample;
use crate::session::keeper::{After, Role};
use crate::session::link::{Closed, Link, LinkEvent};
use crate::wire;

/// Messages that may wait for the connection.
const REQUESTS: usize = 16;
/// Longest wait that a coordinator may ask for before a new connection.
const RECONNECT_MAX: Duration = Duration::from_secs(120);

impl Front {
    /// Opens a link, beside the present one if there is one.
    pub(super) fn connect(&mut self) {
        let (requests, stream) = mpsc::channel(REQUESTS);
        let (generation, role, cancel) = self.keeper.begin(requests);
        let link = Link {
            remote: self.config.agents.clone(),
            identity: self.identity.clone(),
            generation,
            succeeds: role == Role::Successor,
        };
        let events = self.link_events.sender.clone();
        self.tasks.spawn(link.hold(stream, events, cancel));
    }

    /// Says hello on a link. What it says of events and the runner holds until it is answered, as no event is
    /// sent meanwhile.
    fn greet(&mut self, role: Role) {
        let Some(hello) = self.host.as_ref().map(|host| self.hello(host)) else {
            return;
        };
        let Some(requests) = self.keeper.greet(role) else {
            return;
        };
        // The queue is new, so it has room.
        if requests.try_send(request(Sent::Hello(hello))).is_err() {
            tracing::error!("no room for the hello");
        }
        if role == Role::Present {
            self.outbox.rewind();
        }
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
        let Some(role) = self.keeper.role(generation) else {
            return;
        };
        match event {
            LinkEvent::Connected => self.greet(role),
            LinkEvent::Open => {
                self.keeper.opened(role);
                if role == Role::Present {
                    self.session_opened();
                }
            }
            LinkEvent::Message(message) => match role {
                Role::Present => {
                    self.keeper.heard();
                    self.on_message(message);
                }
                Role::Successor => self.on_answer(message),
            },
            LinkEvent::Renewed(identity) => {
                tracing::info!("certificate renewed");
                self.identity = identity;
                self.keep_identity();
                // The link with the old one serves until the coordinator has answered one with the new.
                self.keeper.renew(Instant::now());
            }
            LinkEvent::Closed(closed) => self.on_closed(role, &closed),
        }
    }

    fn session_opened(&mut self) {
        tracing::info!("session opened");
        self.order(Order::Contact { up: true });
        if let Some(sample) = self.sample {
            self.send_heartbeat(sample);
        }
    }

    /// The first message of a link that is to take the place of the present one.
    fn on_answer(&mut self, message: Message) {
        if let Message::Reconnect(_) = message {
            // The coordinator stops, or this part of it: no reason to leave the one that is open.
            return self.on_closed(Role::Successor, &Closed::Ended);
        }
        self.keeper.succeed();
        // What was sent on the one before and not acknowledged may not have arrived.
        self.outbox.rewind();
        self.session_opened();
        self.keeper.heard();
        self.on_message(message);
    }

    pub(super) fn on_closed(&mut self, role: Role, closed: &Closed) {
        let after = self.keeper.closed(role, closed, Instant::now());
        if role == Role::Successor {
            tracing::warn!(reason = %closed, ?after, "no session with the new certificate");
            return;
        }
        if let After::Succeeded { open } = after {
            tracing::info!(reason = %closed, open, "session ended; another is on its way");
            self.outbox.rewind();
            if open {
                return self.session_opened();
            }
        } else {
            tracing::warn!(reason = %closed, ?after, "session ended");
        }
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
            lifetime: span(&configure.lifetime, LIFETIME),
        }));
    }
}
