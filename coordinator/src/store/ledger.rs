//! What the engine, the webhooks and the comparisons with GitHub need of a store.

use std::fmt;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_core::{Effect, Runner, Stored};
use tokio::sync::watch;

use super::{Accepted, Batch, Delivery, Store, StoreError, StoredEntry};

/// The part of a store that decisions stand on. The simulation has one of its own, which loses what was not
/// synced; what is promised here, the tests of both databases check against a model.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// As [`Store::writable`].
    fn writable(&self) -> watch::Receiver<bool>;
    /// As [`Store::accept_delivery`].
    fn accept_delivery(&self, delivery: Delivery) -> BoxFuture<'_, Result<Accepted, StoreError>>;
    /// As [`Store::pending_deliveries`].
    fn pending_deliveries(&self, limit: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>>;
    /// As [`Store::load`].
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>>;
    /// As [`Store::pending_effects`].
    fn pending_effects(&self) -> BoxFuture<'_, Result<Vec<Effect>, StoreError>>;
    /// As [`Store::commit`].
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<StoredEntry>, StoreError>>;
    /// As [`Store::runner`].
    fn runner<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Option<Runner>, StoreError>>;
    /// As [`Store::note`].
    fn note<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>>;
    /// As [`Store::set_note`].
    fn set_note<'a>(
        &'a self,
        name: &'a str,
        value: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
    /// As [`Store::confirm_lead`].
    fn confirm_lead(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl Ledger for Store {
    fn writable(&self) -> watch::Receiver<bool> {
        Store::writable(self)
    }

    fn accept_delivery(&self, delivery: Delivery) -> BoxFuture<'_, Result<Accepted, StoreError>> {
        Store::accept_delivery(self, delivery).boxed()
    }

    fn pending_deliveries(&self, limit: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>> {
        Store::pending_deliveries(self, limit).boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        Store::load(self).boxed()
    }

    fn pending_effects(&self) -> BoxFuture<'_, Result<Vec<Effect>, StoreError>> {
        Store::pending_effects(self).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<StoredEntry>, StoreError>> {
        Store::commit(self, batch).boxed()
    }

    fn runner<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Option<Runner>, StoreError>> {
        Store::runner(self, text).boxed()
    }

    fn note<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        Store::note(self, name).boxed()
    }

    fn set_note<'a>(
        &'a self,
        name: &'a str,
        value: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Store::set_note(self, name, value).boxed()
    }

    fn confirm_lead(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Store::confirm_lead(self).boxed()
    }
}
