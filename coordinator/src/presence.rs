//! Which agents are connected, and what they said last. Heartbeats end here: they are no decisions.

use jiff::Timestamp;
use muster_core::LaunchId;
use muster_proto::v1::{Sample, SessionResponse};
use thiserror::Error;
use tokio::sync::mpsc;

/// Messages that may wait for one agent; an agent that reads so slowly is disconnected.
pub const OUTBOUND_CAPACITY: usize = 16;

/// The table of agents. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Presence {}

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

/// One stream of one agent; dropping it disconnects, unless a newer stream has taken over.
#[derive(Debug)]
pub struct Connection {}

impl Presence {
    /// Registers a stream. An older stream of the same launch is ended: its receiver closes.
    pub fn connect(&self, launch: &LaunchId) -> (Connection, mpsc::Receiver<SessionResponse>) {
        let _ = launch;
        (Connection {}, mpsc::channel(OUTBOUND_CAPACITY).1)
    }

    /// Hands a message to the stream of an agent. Does not wait.
    ///
    /// # Errors
    /// When the agent is not connected, or its queue is full; then it is disconnected too.
    pub fn send(&self, launch: &LaunchId, message: SessionResponse) -> Result<(), SendError> {
        let _ = (launch, message);
        Err(SendError::NotConnected)
    }

    /// What is known of an agent.
    #[must_use]
    pub fn get(&self, launch: &LaunchId) -> Option<Seen> {
        let _ = launch;
        None
    }

    /// Forgets an agent whose runner is gone.
    pub fn forget(&self, launch: &LaunchId) {
        let _ = launch;
    }
}
