//! The one owner of the fleet: takes events, stores what they change, has the effects carried out.

use muster_core::{Event, Fleet};
use thiserror::Error;
use tokio::sync::broadcast;

use crate::store::StoredEntry;

/// The way to the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    entries: broadcast::Sender<StoredEntry>,
}

/// The engine has stopped; the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the coordinator is stopping")]
pub struct Stopped;

impl Engine {
    /// Has an event applied. When this returns, what it changed is durable.
    ///
    /// # Errors
    /// When the engine has stopped: the event may or may not have been applied.
    pub async fn submit(&self, event: Event) -> Result<(), Stopped> {
        let _ = event;
        std::future::ready(Err(Stopped)).await
    }

    /// Runs a short function over the fleet between two events.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Fleet) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let _ = read;
        std::future::ready(Err(Stopped)).await
    }

    /// Says that the inbox holds deliveries that were not there before.
    pub fn inbox_ready(&self) {}

    /// Timeline entries from now on, once they are durable. A slow receiver misses some and is told
    /// how many.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<StoredEntry> {
        self.entries.subscribe()
    }
}
