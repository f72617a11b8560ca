//! All agents, where the judge finds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::host::Host;

/// One agent's state: its own task writes it, step by step, and the judge reads it between two steps.
/// Locked for a step, and across no wait.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Host>>);

impl Shared {
    pub(super) fn new(host: Host) -> Self {
        Self(Arc::new(Mutex::new(host)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Host> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agents by their instances, those that are over too.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<String, Shared>>);

impl Board {
    /// Adds an agent; `None` if its instance has one already.
    pub(super) fn add(&self, instance: &str, host: Host) -> Option<Shared> {
        let mut agents = self.lock();
        if agents.contains_key(instance) {
            return None;
        }
        let shared = Shared::new(host);
        agents.insert(instance.to_owned(), shared.clone());
        Some(shared)
    }

    pub(super) fn get(&self, instance: &str) -> Option<Shared> {
        self.lock().get(instance).cloned()
    }

    /// All agents, by their instances.
    pub(super) fn all(&self) -> BTreeMap<String, Shared> {
        self.lock().clone()
    }

    /// How many agents that are not over are as asked.
    pub(super) fn count(&self, is: impl Fn(&Host) -> bool) -> usize {
        let agents = self.lock();
        let hosts = agents.values().map(Shared::lock);
        hosts.filter(|host| !host.over && is(host)).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
