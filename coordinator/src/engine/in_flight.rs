//! The effects that are under way.

use std::collections::{BTreeSet, HashMap};

use futures::FutureExt as _;
use muster_core::{Effect, Event};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

use super::executor::Executor;

/// The effects that are under way, at most one for each key.
#[derive(Debug)]
pub(super) struct InFlight {
    held_up: mpsc::Sender<Event>,
    tasks: JoinSet<Option<Event>>,
    keys: HashMap<Id, Effect>,
    running: BTreeSet<String>,
}

impl InFlight {
    /// None yet. What can't be done at once is told to `held_up`.
    pub(super) fn new(held_up: mpsc::Sender<Event>) -> Self {
        Self {
            held_up,
            tasks: JoinSet::new(),
            keys: HashMap::new(),
            running: BTreeSet::new(),
        }
    }

    /// Starts an effect, unless the same intent is under way.
    pub(super) fn start(&mut self, executor: &Executor, effect: Effect) {
        if !self.running.insert(effect.key()) {
            return;
        }
        let work = executor
            .clone()
            .carry_out(effect.clone(), self.held_up.clone());
        let task = self.tasks.spawn(work);
        self.keys.insert(task.id(), effect);
    }

    /// The next effect that has ended. None while nothing is under way. Dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        let (id, answer) = match self.tasks.join_next_with_id().await? {
            Ok((id, answer)) => (id, Some(answer)),
            Err(error) => {
                tracing::error!(%error, "the task of an effect failed");
                (error.id(), None)
            }
        };
        let effect = self.keys.remove(&id)?;
        self.running.remove(&effect.key());
        Some(match answer {
            Some(answer) => Ended::Answered {
                key: effect.key(),
                answer,
            },
            None => Ended::Failed(effect),
        })
    }

    /// The next effect that has ended already.
    pub(super) fn next_now(&mut self) -> Option<Ended> {
        self.next().now_or_never().flatten()
    }
}

/// How an effect ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It has its answer, if it has one at all.
    Answered { key: String, answer: Option<Event> },
    /// Its task died of a bug: it is still to be carried out.
    Failed(Effect),
}
