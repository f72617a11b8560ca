//! The one owner of the fleet: takes events, stores what they change, has the effects carried out.

mod actor;
mod executor;
mod images;
mod in_flight;
mod inbox;
mod messages;
mod notices;
mod patience;
mod reruns;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use muster_core::{Event, Fleet, FleetSpec};
use thiserror::Error;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::executor::Executor;
pub use self::images::images;
pub use self::messages::Vault;
pub use self::notices::notices;
pub use self::sweep::sweep;
use crate::presence::Presence;
use crate::store::{Ledger, StoreError, StoredEntry};
use crate::telemetry::Metrics;

/// Commands that may wait for the engine; those who send more wait themselves.
const COMMANDS: usize = 1024;
/// Timeline entries that a slow watcher may be behind before it misses some.
const WATCHED: usize = 1024;

/// The way to the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    entries: broadcast::Sender<StoredEntry>,
    trouble: watch::Receiver<Option<String>>,
    inbox: Arc<Notify>,
}

/// Where is said why what was decided can't be stored, while it can't.
type Trouble = watch::Sender<Option<String>>;

/// The engine has stopped; the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the coordinator is stopping")]
pub struct Stopped;

/// The engine can't go on.
#[derive(Debug, Error)]
pub enum EngineError {
    /// What was stored could not be read.
    #[error("what is stored can't be read: {0}")]
    Load(StoreError),
    /// What was decided could not be stored: the store refuses it for good, another coordinator leads, or
    /// this one was told to stop during an outage.
    #[error("what was decided can't be stored: {0}")]
    Store(#[from] StoreError),
    /// The system gives no random bytes.
    #[error("no random bytes for launch ids")]
    Random,
}

/// What the engine works with.
#[derive(Debug)]
pub struct Parts {
    /// Where all is stored.
    pub store: Arc<dyn Ledger>,
    /// The pools.
    pub spec: FleetSpec,
    /// The way to the agents.
    pub presence: Presence,
    /// Carries effects out.
    pub executor: Executor,
    /// The figures.
    pub metrics: Metrics,
    /// Whether each account's instances are to be listed before anything is launched there.
    pub list_first: bool,
}

type Question = Box<dyn FnOnce(&Fleet) + Send>;

enum Command {
    Apply {
        event: Event,
        stored: oneshot::Sender<()>,
    },
    Ask(Question),
}

impl Engine {
    /// Loads the fleet and makes the engine; nothing happens until the second value is run.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn new(parts: Parts) -> Result<(Self, Runnable), EngineError> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (entries, _) = broadcast::channel(WATCHED);
        let (trouble, told) = watch::channel(None);
        let engine = Self {
            commands,
            entries: entries.clone(),
            trouble: told,
            inbox: Arc::default(),
        };
        let (metrics, inbox) = (parts.metrics.clone(), Arc::clone(&engine.inbox));
        let actor = actor::Actor::load(parts, entries, trouble, inbox).await?;
        // There is no engine where nobody leads.
        metrics.lead();
        Ok((engine, Runnable { actor, receiver }))
    }

    /// Has an event applied. When this returns, what it changed is durable; while the store can't be
    /// written, it doesn't return.
    ///
    /// # Errors
    /// When the engine has stopped: the event may or may not have been applied.
    pub async fn submit(&self, event: Event) -> Result<(), Stopped> {
        let (stored, done) = oneshot::channel();
        self.commands
            .send(Command::Apply { event, stored })
            .await
            .map_err(|_| Stopped)?;
        done.await.map_err(|_| Stopped)
    }

    /// Runs a short function over the fleet between two events, once all before it is durable.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Fleet) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |fleet| {
            // Nobody waits for the answer any more: nothing is lost.
            let _ = answer.send(read(fleet));
        });
        self.commands
            .send(Command::Ask(question))
            .await
            .map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Waits until what was decided can't be stored, and says why. Until it can, nobody is answered.
    pub async fn held_up(&self) -> String {
        let mut trouble = self.trouble.clone();
        let told = trouble.wait_for(Option::is_some).await;
        let why = told.ok().and_then(|told| told.clone());
        match why {
            Some(why) => why,
            // It has stopped, which whoever waits for an answer hears.
            None => std::future::pending().await,
        }
    }

    /// Waits until a function finds something in the fleet; it is asked again after each entry of the timeline.
    #[cfg(test)]
    pub(crate) async fn until<T: Send + 'static>(
        &self,
        look: impl Fn(&Fleet) -> Option<T> + Clone + Send + 'static,
    ) -> T {
        let mut entries = self.subscribe();
        loop {
            if let Some(found) = self.query(look.clone()).await.unwrap() {
                return found;
            }
            // One that was missed is as good as one that was read.
            let _ = entries.recv().await;
        }
    }

    /// Says that the inbox holds deliveries that were not there before.
    pub fn inbox_ready(&self) {
        self.inbox.notify_one();
    }

    /// Timeline entries from now on, once they are durable. A slow receiver misses some and is told
    /// how many.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<StoredEntry> {
        self.entries.subscribe()
    }
}

/// An engine that waits to be run.
#[derive(Debug)]
pub struct Runnable {
    actor: actor::Actor,
    receiver: mpsc::Receiver<Command>,
}

impl Runnable {
    /// Runs until it is told to stop; effects under way are dropped then, and carried out again at the
    /// next start.
    ///
    /// # Errors
    /// When the store fails for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), EngineError> {
        self.actor.run(self.receiver, stop).await
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Apply { event, .. } => f.debug_tuple("Apply").field(event).finish(),
            Self::Ask(_) => f.write_str("Ask"),
        }
    }
}
