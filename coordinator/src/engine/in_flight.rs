//! The effects that are under way.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::FutureExt as _;
use muster_core::{Effect, Event};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

use super::executor::Executor;
use crate::backoff::Backoff;

/// Waits of an effect whose task died, by a bug that may last.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The effects that are under way, at most one for each key.
#[derive(Debug)]
pub(super) struct InFlight {
    held_up: mpsc::Sender<Event>,
    tasks: JoinSet<Option<Event>>,
    keys: HashMap<Id, Effect>,
    running: BTreeSet<String>,
    /// How long those whose tasks died wait before they are tried again.
    failed: HashMap<String, Backoff>,
}

impl InFlight {
    /// None yet. What can't be done at once is told to `held_up`.
    pub(super) fn new(held_up: mpsc::Sender<Event>) -> Self {
        Self {
            held_up,
            tasks: JoinSet::new(),
            keys: HashMap::new(),
            running: BTreeSet::new(),
            failed: HashMap::new(),
        }
    }

    /// Starts an effect, unless the same intent is under way: false then. One whose task died waits first.
    pub(super) fn start(&mut self, executor: &Executor, effect: Effect) -> bool {
        let work = executor
            .clone()
            .carry_out(effect.clone(), self.held_up.clone());
        self.spawn(effect, work)
    }

    fn spawn(
        &mut self,
        effect: Effect,
        work: impl Future<Output = Option<Event>> + Send + 'static,
    ) -> bool {
        let key = effect.key();
        if !self.running.insert(key.clone()) {
            return false;
        }
        let wait = self.failed.get_mut(&key).map(Backoff::wait);
        let task = self.tasks.spawn(async move {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            work.await
        });
        self.keys.insert(task.id(), effect);
        true
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
        let key = effect.key();
        self.running.remove(&key);
        Some(if let Some(answer) = answer {
            self.failed.remove(&key);
            Ended::Answered { key, answer }
        } else {
            let first = || Backoff::new(FIRST_WAIT, LONGEST_WAIT);
            self.failed.entry(key).or_insert_with(first);
            Ended::Failed(effect)
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::chance::seeded;

    #[tokio::test(start_paused = true)]
    async fn an_effect_whose_task_dies_is_tried_again_after_waits_that_grow() {
        seeded::start(7);
        let effect = Effect::TerminateStray {
            account: "local".into(),
            instance: "i-1".into(),
        };
        let mut in_flight = InFlight::new(mpsc::channel(1).0);
        let began = Instant::now();
        for _ in 0..12 {
            in_flight.spawn(effect.clone(), async { panic!("of a bug") });
            // The same intent is under way, also while it waits.
            in_flight.spawn(effect.clone(), async { None });
            let ended = in_flight.next().await;
            assert!(matches!(ended, Some(Ended::Failed(of)) if of == effect));
        }
        // Of waits of up to 0.5, 1, 2, … 60 s, five at the longest.
        let waited = began.elapsed();
        assert!(waited > Duration::from_secs(60), "{waited:?}");
        in_flight.spawn(effect.clone(), async { None });
        let ended = in_flight.next().await;
        assert!(matches!(ended, Some(Ended::Answered { .. })));

        // One that went well has no past.
        let again = Instant::now();
        in_flight.spawn(effect, async { None });
        in_flight.next().await;
        assert_eq!(again.elapsed(), Duration::ZERO);
    }
}
