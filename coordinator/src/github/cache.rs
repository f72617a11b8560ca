//! Values that are fetched once, shared, and fetched anew before they go bad.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::errors::GithubError;

/// Keys at most; beyond, all are forgotten and fetched anew.
const MAX_KEYS: usize = 4096;

/// A value and when it should be fetched anew.
pub(super) type Fetched<V> = (V, Instant);

/// One slot for each key, with a lock that is held while its value is fetched: callers that come
/// meanwhile wait, and share what comes of it.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    slots: Mutex<HashMap<K, Arc<tokio::sync::Mutex<Slot<V>>>>>,
}

#[derive(Debug)]
struct Slot<V> {
    value: Option<Fetched<V>>,
    failure: Option<(GithubError, Instant)>,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new() -> Self {
        Self {
            slots: Mutex::new(HashMap::new()),
        }
    }

    /// The value, fetched if there is none or it is old. The fetch must end by itself in time.
    ///
    /// A failure is shared by those who waited for it, and not kept.
    pub(super) async fn get(
        &self,
        key: &K,
        fetch: impl AsyncFnOnce() -> Result<Fetched<V>, GithubError>,
    ) -> Result<V, GithubError> {
        let asked = Instant::now();
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if let Some((value, until)) = &slot.value
            && *until > Instant::now()
        {
            return Ok(value.clone());
        }
        if let Some((failure, at)) = &slot.failure
            && *at > asked
        {
            return Err(failure.clone());
        }
        match fetch().await {
            Ok((value, until)) => {
                slot.value = Some((value.clone(), until));
                slot.failure = None;
                Ok(value)
            }
            Err(failure) => {
                slot.failure = Some((failure.clone(), Instant::now()));
                Err(failure)
            }
        }
    }

    /// Forgets the value if it is still one that the caller found to be bad.
    pub(super) async fn forget(&self, key: &K, bad: impl FnOnce(&V) -> bool) {
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        slot.value.take_if(|(value, _)| bad(value));
    }

    /// Forgets all such values, but for those that are just being fetched.
    pub(super) fn forget_all(&self, bad: impl Fn(&V) -> bool) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            if let Ok(mut slot) = slot.try_lock() {
                slot.value.take_if(|(value, _)| bad(value));
            }
        }
    }

    fn slot(&self, key: &K) -> Arc<tokio::sync::Mutex<Slot<V>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_KEYS {
            slots.clear();
        }
        let slot = Arc::new(tokio::sync::Mutex::new(Slot {
            value: None,
            failure: None,
        }));
        slots.insert(key.clone(), Arc::clone(&slot));
        slot
    }
}
