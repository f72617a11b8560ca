//! Which agents are connected, and what they said last. Heartbeats end here: they are no decisions.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::LaunchId;
use muster_proto::v1::{Sample, SessionResponse};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::telemetry::Metrics;

/// Messages that may wait for one agent; an agent that reads so slowly is disconnected.
pub const OUTBOUND_CAPACITY: usize = 16;

/// Heartbeats that may fail to come before an agent counts as lost.
const MISSED_BEATS: u32 = 3;

/// Locks of the table. A heartbeat holds one for the time of a look-up and three stores.
const SHARDS: usize = 64;

/// The table of agents. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    table: Arc<Table>,
}

/// What is known of one agent.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether it holds a stream.
    pub connected: bool,
    /// When it was last heard.
    pub last_seen: Timestamp,
    /// Its latest sample.
    pub sample: Option<Sample>,
}

/// What is known of an agent without asking the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds a stream, and its work is not known to be over.
    Connected,
    /// It holds no stream.
    Away,
    /// Its work is over.
    Revoked,
}

/// A message could not be handed to the agent's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// It holds no stream.
    #[error("the agent is not connected")]
    NotConnected,
    /// It does not read.
    #[error("the agent does not read its messages")]
    Stalled,
}

/// How a stream stands when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was the agent's only stream: the agent is not connected now.
    Last,
    /// A newer stream of the agent took over.
    Superseded,
}

/// One stream of one agent; dropping it disconnects, unless a newer stream has taken over.
#[derive(Debug)]
pub struct Connection {
    table: Arc<Table>,
    launch: LaunchId,
    number: u64,
    turn: Turn,
}

/// A message on its way. On the heap, as a channel has places for 32 of them, full or not.
type Message = Box<SessionResponse>;

/// The right to tell the core of the streams of one launch. It is held while a stream tells that it
/// opened or ended, so that the core hears both in the order in which they happened.
pub type Turn = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<LaunchId, Agent>>>,
}

#[derive(Debug)]
struct Agent {
    /// Number of the newest stream; a stream with another number is superseded.
    newest: u64,
    outbound: Option<mpsc::Sender<Message>>,
    last_seen: Timestamp,
    sample: Option<Box<Sample>>,
    /// Highest sequence number of its events that is durable; none before the first.
    acknowledged: Option<u64>,
    /// Its stream waits for us and is not read: its silence is ours.
    unread: bool,
    /// Its work is over: it holds no stream any more, nor gets another one.
    revoked: bool,
    turn: Turn,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Table {
    fn shard(&self, launch: &LaunchId) -> MutexGuard<'_, HashMap<LaunchId, Agent>> {
        let hash = self.hasher.hash_one(launch);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        // No code panics under the lock, and each entry is whole at any moment.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn agent<T>(&self, launch: &LaunchId, act: impl FnOnce(&mut Agent) -> T) -> Option<T> {
        self.shard(launch).get_mut(launch).map(act)
    }
}

impl Presence {
    /// Registers a stream. An older stream of the same launch is ended: its receiver closes. So does
    /// that of the new one at once if the launch was [revoked](Self::revoke).
    pub fn connect(&self, launch: &LaunchId) -> (Connection, mpsc::Receiver<Message>) {
        let (outbound, receiver) = mpsc::channel(OUTBOUND_CAPACITY);
        let now = clock::now();
        let mut shard = self.table.shard(launch);
        let agent = shard
            .entry(launch.clone())
            .or_insert_with(|| Agent::new(now));
        agent.newest += 1;
        agent.outbound = (!agent.revoked).then_some(outbound);
        agent.last_seen = now;
        agent.unread = false;
        let connection = Connection {
            table: Arc::clone(&self.table),
            launch: launch.clone(),
            number: agent.newest,
            turn: Arc::clone(&agent.turn),
        };
        (connection, receiver)
    }

    /// The right to tell the core of the streams of this launch. Take it before
    /// [`connect`](Self::connect), and again before [`Connection::end`].
    #[must_use]
    pub fn turn(&self, launch: &LaunchId) -> Turn {
        let mut shard = self.table.shard(launch);
        let agent = shard
            .entry(launch.clone())
            .or_insert_with(|| Agent::new(clock::now()));
        Arc::clone(&agent.turn)
    }

    /// Hands a message to the stream of an agent. Does not wait.
    ///
    /// # Errors
    /// When the agent is not connected, or its queue is full; then it is disconnected too.
    pub fn send(&self, launch: &LaunchId, message: SessionResponse) -> Result<(), SendError> {
        let sent = self.table.agent(launch, |agent| {
            let outbound = agent.outbound.as_ref().ok_or(SendError::NotConnected)?;
            outbound.try_send(Box::new(message)).map_err(|error| {
                agent.outbound = None;
                match error {
                    mpsc::error::TrySendError::Full(_) => SendError::Stalled,
                    mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
                }
            })
        });
        sent.unwrap_or(Err(SendError::NotConnected))
    }

    /// What is known of an agent; nothing if it has held no stream.
    #[must_use]
    pub fn get(&self, launch: &LaunchId) -> Option<Seen> {
        let seen = self.table.agent(launch, |agent| {
            (agent.newest > 0).then(|| Seen {
                connected: agent.outbound.is_some(),
                last_seen: agent.last_seen,
                sample: agent.sample.as_deref().copied(),
            })
        });
        seen.flatten()
    }

    /// What is known of an agent without asking the ledger.
    #[must_use]
    pub fn standing(&self, launch: &LaunchId) -> Standing {
        let standing = self.table.agent(launch, |agent| {
            if agent.revoked {
                Standing::Revoked
            } else if agent.outbound.is_some() {
                Standing::Connected
            } else {
                Standing::Away
            }
        });
        standing.unwrap_or(Standing::Away)
    }

    /// Number of agents that hold a stream.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.shards()
            .map(|shard| {
                let connected = shard.values().filter(|agent| agent.outbound.is_some());
                connected.count()
            })
            .sum()
    }

    /// Ends the streams of agents that were not heard for longer than `silence`, and says whose.
    /// Each stream reports its own end to the core, so the caller need not.
    pub fn sweep(&self, now: Timestamp, silence: Duration) -> Vec<LaunchId> {
        let mut silent = Vec::new();
        for mut shard in self.shards() {
            for (launch, agent) in shard.iter_mut() {
                let unheard = now.duration_since(agent.last_seen).unsigned_abs();
                let is_silent = agent.last_seen < now && unheard > silence && !agent.unread;
                if agent.outbound.is_some() && is_silent {
                    agent.outbound = None;
                    silent.push(launch.clone());
                }
            }
        }
        silent
    }

    /// Ends the stream of an agent whose work is over, and any that it opens from now on.
    pub fn revoke(&self, launch: &LaunchId) {
        let mut shard = self.table.shard(launch);
        let agent = shard
            .entry(launch.clone())
            .or_insert_with(|| Agent::new(clock::now()));
        agent.revoked = true;
        agent.outbound = None;
    }

    /// Forgets an agent whose runner is gone, and ends its stream if it holds one.
    pub fn forget(&self, launch: &LaunchId) {
        self.table.shard(launch).remove(launch);
    }

    fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<LaunchId, Agent>>> {
        let shards = self.table.shards.iter();
        shards.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Agent {
    fn new(now: Timestamp) -> Self {
        Self {
            newest: 0,
            outbound: None,
            last_seen: now,
            sample: None,
            acknowledged: None,
            unread: false,
            revoked: false,
            turn: Arc::default(),
        }
    }
}

impl Connection {
    /// Notes that the agent was heard, with its sample if it sent one.
    pub fn heard(&self, now: Timestamp, sample: Option<Sample>) {
        self.newest(|agent| {
            agent.last_seen = now;
            if let Some(sample) = sample {
                match &mut agent.sample {
                    Some(place) => **place = sample,
                    none => *none = Some(Box::new(sample)),
                }
            }
        });
    }

    /// Waits for something of ours. Meanwhile the stream is not read, and the agent does not count as
    /// silent; it counts as heard at the end.
    pub async fn unread<T>(&self, work: impl Future<Output = T>) -> T {
        self.newest(|agent| agent.unread = true);
        let done = work.await;
        self.newest(|agent| {
            agent.unread = false;
            agent.last_seen = clock::now();
        });
        done
    }

    /// Highest sequence number that is durable; none if no event of this agent was seen since the
    /// start of the process.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        self.table
            .agent(&self.launch, |agent| agent.acknowledged)
            .flatten()
    }

    /// Notes that events up to this one are durable; none starts anew, for an agent that counts
    /// from 1 again.
    pub fn acknowledge(&self, through: Option<u64>) {
        self.newest(|agent| agent.acknowledged = through);
    }

    /// Whether a newer stream of the agent has taken over.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.table
            .agent(&self.launch, |agent| agent.newest != self.number)
            .unwrap_or(false)
    }

    /// Whether the work of the agent is over.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.table
            .agent(&self.launch, |agent| agent.revoked)
            .unwrap_or(false)
    }

    /// The right to tell the core of the streams of this launch.
    #[must_use]
    pub fn turn(&self) -> Turn {
        Arc::clone(&self.turn)
    }

    /// Disconnects, and says whether the agent still holds another stream.
    pub fn end(self) -> Ended {
        self.disconnect()
    }

    fn disconnect(&self) -> Ended {
        if self.is_superseded() {
            return Ended::Superseded;
        }
        self.newest(|agent| agent.outbound = None);
        Ended::Last
    }

    /// Acts on the agent's entry, unless a newer stream owns it.
    fn newest(&self, act: impl FnOnce(&mut Agent)) {
        self.table.agent(&self.launch, |agent| {
            if agent.newest == self.number {
                act(agent);
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Ends the streams of agents that say nothing; the fleet hears of it as of any stream that ends.
/// Until it is told to stop.
pub async fn watch_silence(
    presence: Presence,
    metrics: Metrics,
    heartbeat: Duration,
    stop: CancellationToken,
) {
    while stop
        .run_until_cancelled(tokio::time::sleep(heartbeat))
        .await
        .is_some()
    {
        metrics.set_agents(presence.connected());
        for launch in presence.sweep(clock::now(), heartbeat * MISSED_BEATS) {
            tracing::warn!(
                launch = launch.as_str(),
                "an agent held a stream and said nothing"
            );
        }
    }
}

#[cfg(test)]
mod tests;
