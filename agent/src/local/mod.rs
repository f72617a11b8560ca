//! What the two halves of the agent say to each other: the front, which faces the network, and the
//! supervisor, which has the runner.
//!
//! They are two processes on a host with systemd and one elsewhere; the words are the same. Either
//! can die and come back: orders are repeatable, and reports begin with the whole state.

mod codec;
pub(crate) mod socket;

use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::{AgentEvent, RunnerPhase, Sample};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Words that may wait in one direction. The end of a full queue is the end of the connection: the
/// other half hangs, and gets the whole state again when it comes back.
const QUEUE: usize = 512;

/// Bounds of the time between two samples.
pub(crate) const HEARTBEAT: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(300));
/// Bounds of the lead and the grace.
pub(crate) const STOPPING: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_secs(3600));
/// Bounds of a life. The most is what a pool can give: the longest that GitHub lets a job run on a runner of
/// one's own.
pub(crate) const LIFETIME: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(5 * 86_400));
/// Longest text of the front's that the supervisor keeps, in characters.
const TEXT_MAX: usize = 1024;

/// `text` as far as the supervisor keeps it. Who has taken the front over must not fill its state.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// What the front says. Each may come again after a connection was lost, and does no harm then.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Whether there is a stream to the coordinator.
    Contact {
        /// There is.
        up: bool,
    },
    /// Settings of the coordinator; what is none stays as it was.
    Settings(Settings),
    /// Be this runner. Taken once in a life.
    Assign(Assignment),
    /// Take no new job.
    Drain {
        /// When the instance goes, if that is known.
        deadline: Option<Timestamp>,
    },
    /// The registration is gone.
    Retire,
    /// Stop whatever runs and end.
    Shutdown {
        /// Why, for people.
        reason: String,
    },
    /// Something will take the instance away.
    Notice(Notice),
    /// The coordinator has these events.
    Acknowledge {
        /// All with this number or a lower one.
        through: u64,
    },
    /// The coordinator doesn't want to hear from this instance any more.
    Unwanted,
}

/// Settings that the coordinator may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Time between two samples.
    pub(crate) heartbeat_interval: Option<Duration>,
    /// How long before a deadline a runner is told to stop.
    pub(crate) interrupt_lead: Option<Duration>,
    /// How long it may take then.
    pub(crate) stop_grace: Option<Duration>,
    /// How long the pool lets its instances live.
    pub(crate) lifetime: Option<Duration>,
}

impl Settings {
    /// The same, each within its bounds, which the front keeps too if it is what it should be.
    pub(crate) fn bounded(self) -> Self {
        let within = |span: Option<Duration>, (least, most)| span.map(|it| it.clamp(least, most));
        Self {
            heartbeat_interval: within(self.heartbeat_interval, HEARTBEAT),
            interrupt_lead: within(self.interrupt_lead, STOPPING),
            stop_grace: within(self.stop_grace, STOPPING),
            lifetime: within(self.lifetime, LIFETIME),
        }
    }
}

/// The one assignment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// The runner's name at GitHub.
    pub(crate) runner_name: String,
    /// GitHub's just-in-time configuration, as it came.
    #[serde(with = "codec::secret")]
    pub(crate) jit_config: SecretString,
}

/// A notice that the instance will be taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// A value of the protocol's `InterruptionKind`.
    pub(crate) kind: i32,
    /// When, if that is known.
    pub(crate) deadline: Option<Timestamp>,
    /// In the words of its source.
    pub(crate) detail: String,
}

/// What the supervisor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// How things stand. First on each connection, and after each change.
    State(HostState),
    /// Something to tell the coordinator. All that are not acknowledged follow the first state.
    Event(#[serde(with = "codec::message")] AgentEvent),
    /// A reading of resource use.
    Sample(#[serde(with = "codec::message")] Sample),
    /// The work is over and told, or nobody is there to be told.
    Done,
}

/// How things stand on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostState {
    /// A value of the protocol's `RunnerPhase`.
    pub(crate) phase: i32,
    /// A job is, or may be, the runner's.
    pub(crate) busy: bool,
    /// Name of the runner in the assignment, once there was one.
    pub(crate) runner_name: Option<String>,
    /// As the runner printed it.
    pub(crate) runner_version: String,
    /// The highest number given to an event.
    pub(crate) last_sequence: u64,
    /// When what was reached.
    pub(crate) marks: Marks,
}

impl HostState {
    /// The phase; unspecified if it is of another version.
    pub(crate) fn phase(&self) -> RunnerPhase {
        RunnerPhase::try_from(self.phase).unwrap_or_default()
    }
}

/// When the steps of the start were reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// The runner's process was started.
    pub(crate) spawned: Option<Timestamp>,
    /// It was first seen to listen.
    pub(crate) listening: Option<Timestamp>,
    /// It was first seen to run its job.
    pub(crate) job_started: Option<Timestamp>,
}

/// One end of a connection: says `S`, hears `R`. It is over once `from` has ended.
#[derive(Debug)]
pub(crate) struct Connection<S, R> {
    /// What is said here is heard at the other end.
    pub(crate) to: mpsc::Sender<S>,
    /// What is heard.
    pub(crate) from: mpsc::Receiver<R>,
}

/// The supervisor's end.
pub(crate) type ToFront = Connection<Report, Order>;
/// The front's end.
pub(crate) type ToSupervisor = Connection<Order, Report>;

/// Both ends of a connection within one process.
pub(crate) fn pair() -> (ToFront, ToSupervisor) {
    let (orders, ordered) = mpsc::channel(QUEUE);
    let (reports, reported) = mpsc::channel(QUEUE);
    let front = Connection {
        to: reports,
        from: ordered,
    };
    let supervisor = Connection {
        to: orders,
        from: reported,
    };
    (front, supervisor)
}

/// What is heard next; never, if there is no connection.
pub(crate) async fn heard<S, R>(connection: &mut Option<Connection<S, R>>) -> Option<R> {
    match connection {
        Some(connection) => connection.from.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{HEARTBEAT, LIFETIME, STOPPING, Settings, shortened};

    #[test]
    fn what_a_front_says_is_held_within_bounds() {
        let settings = |span| Settings {
            heartbeat_interval: span,
            interrupt_lead: span,
            stop_grace: span,
            lifetime: span,
        };
        assert_eq!(settings(None).bounded(), settings(None));
        let least = settings(Some(Duration::ZERO)).bounded();
        assert_eq!(least.heartbeat_interval, Some(HEARTBEAT.0));
        assert_eq!(least.stop_grace, Some(STOPPING.0));
        let most = settings(Some(Duration::MAX)).bounded();
        assert_eq!(most.heartbeat_interval, Some(HEARTBEAT.1));
        assert_eq!(most.interrupt_lead, Some(STOPPING.1));
        assert_eq!(most.lifetime, Some(LIFETIME.1));
        assert_eq!(shortened("é").as_str(), "é");
        assert_eq!(shortened(&"é".repeat(900_000)).chars().count(), 1024);
    }
}
