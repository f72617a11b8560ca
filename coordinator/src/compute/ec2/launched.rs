//! What each instance was launched as, for the time in which it may enrol; and which batches are stored.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::InstanceId;
use tokio::time::Instant;

use super::batch::{Batch, Outcome};
use crate::compute::LaunchedAs;

/// How long it is known. An instance enrols within minutes or never, and there are instances that are described
/// for the first time after a restart.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);

/// What instances were launched as. Cheap to clone.
///
/// Behind a lock, which is held for a look at the map only: the tasks of calls write as they end, and the
/// questions of instances that enrol read, without a way through the launcher.
#[derive(Clone, Debug, Default)]
pub(super) struct LaunchedInstances(Arc<Mutex<HashMap<InstanceId, Entry>>>);

#[derive(Debug)]
struct Entry {
    launched_as: Arc<LaunchedAs>,
    since: Instant,
}

impl LaunchedInstances {
    /// What the stored batches made.
    pub(super) fn restore(batches: &[Batch]) -> Self {
        let launched = Self::default();
        for batch in batches {
            launched.remember(batch);
        }
        launched
    }

    /// Keeps what a settled batch asked for, for each instance that came of it.
    pub(super) fn remember(&self, batch: &Batch) {
        let Some(Outcome::Dealt(dealt)) = &batch.outcome else {
            return;
        };
        let launched_as = Arc::new(LaunchedAs {
            batch: batch.token.clone(),
            image: batch.request.image.clone(),
            subnets: {
                let choices = batch.request.choices.iter();
                choices.map(|choice| choice.subnet.clone()).collect()
            },
        });
        let now = Instant::now();
        let mut known = self.known();
        known.retain(|_, entry| now.duration_since(entry.since) < REMEMBERED);
        known.extend(dealt.values().map(|made| {
            let entry = Entry {
                launched_as: Arc::clone(&launched_as),
                since: now,
            };
            (made.instance.clone(), entry)
        }));
    }

    /// What an instance was launched as, if it was.
    pub(super) fn get(&self, instance: &InstanceId) -> Option<LaunchedAs> {
        let known = self.known();
        known
            .get(instance)
            .map(|entry| LaunchedAs::clone(&entry.launched_as))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<InstanceId, Entry>> {
        // Each change is one call of the map's own.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Batches that the store is known to have, so that it is not asked for all of them at each listing. Cheap to
/// clone; locked for a look, as above.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredBatches(Arc<Mutex<HashSet<String>>>);

impl StoredBatches {
    /// Those of these that are not known to be stored. Others than these are forgotten.
    pub(super) fn unknown(&self, tokens: &BTreeSet<&String>) -> Vec<String> {
        let mut known = self.known();
        known.retain(|token| tokens.contains(token));
        let unknown = tokens.iter().filter(|token| !known.contains(**token));
        unknown.map(|token| (*token).clone()).collect()
    }

    /// The store has this one.
    pub(super) fn add(&self, token: String) {
        self.known().insert(token);
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::ec2::batch::fixtures::{batch, made};

    fn dealt(id: &str) -> Batch {
        let mut batch = batch(&["l-1"]);
        batch.outcome = Some(Outcome::Dealt(batch.deal(vec![made(id)])));
        batch
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_what_its_own_batch_asked_for_whatever_is_asked_later() {
        let mut first = dealt("i-1");
        first.request.image = Some("ami-old".to_owned());
        let mut second = dealt("i-2");
        second.request.image = None;
        second.request.choices[0].subnet = "subnet-b".to_owned();
        let mut refused = batch(&["l-3"]);
        refused.outcome = Some(Outcome::Refused("no".to_owned()));
        let launched = LaunchedInstances::restore(&[first.clone(), refused, batch(&["l-4"])]);
        launched.clone().remember(&second);
        let expected = |batch: &Batch, image: Option<&str>, subnet: &str| LaunchedAs {
            batch: batch.token.clone(),
            image: image.map(str::to_owned),
            subnets: [subnet.to_owned()].into(),
        };
        assert_eq!(
            launched.get(&"i-1".into()),
            Some(expected(&first, Some("ami-old"), "subnet-a"))
        );
        assert_eq!(
            launched.get(&"i-2".into()),
            Some(expected(&second, None, "subnet-b"))
        );
        assert_eq!(launched.get(&"i-3".into()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_launched_long_ago_is_forgotten() {
        let launched = LaunchedInstances::restore(&[dealt("i-1")]);
        tokio::time::advance(REMEMBERED).await;
        launched.remember(&dealt("i-2"));
        assert_eq!(launched.get(&"i-1".into()), None);
        assert!(launched.get(&"i-2".into()).is_some());
    }
}
