//! What must survive: the inbox, the fleet, the outbox, the timeline, tokens and operators' actions.
//!
//! One task writes; what waits for it at the same time shares a transaction (`writer`). Reads have
//! their own connections and see what is committed. Beyond this door there is no SQL.

mod batches;
mod codec;
mod enrolments;
mod error;
#[cfg(test)]
mod fixtures;
mod fleet;
mod inbox;
mod journal;
mod prune;
mod sqlite;
#[cfg(test)]
mod tests;
mod timeline;
mod tokens;
mod types;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use muster_core::{AccountName, Effect, Job, JobId, Runner, Stored};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

pub use error::StoreError;
pub use types::{
    Accepted, Batch, Claimed, Delivery, Enrolment, JoinToken, LaunchBatch, OperatorAction, Pruned,
    Redeemed, StoredEntry, TimelineQuery,
};

use journal::Note;
use tokens::Redeem;
use writer::Writer;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    reads: SqlitePool,
    /// Keeps another coordinator out until the last clone is dropped.
    _lock: File,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the SQLite file, makes it if there is none, and brings its schema up to date. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// When the file can't be opened, another coordinator has it open, or its schema is newer than
    /// this program.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, sqlite::options(path)).await
    }

    async fn open_with(path: &Path, options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let lock = sqlite::lock(path)?;
        sqlite::create_private(path)?;
        let mut db = options.connect().await?;
        sqlite::migrate(&mut db).await?;
        let reads = sqlite::readers(options.clone()).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                writer: Writer::start(db, options),
                reads,
                _lock: lock,
            }),
        })
    }

    /// Writes what is queued and closes the file. Every call after this fails with
    /// [`StoreError::Closed`] or a database error.
    pub async fn close(&self) {
        self.inner.writer.close().await;
        self.inner.reads.close().await;
    }

    /// Stores a delivery; durable on return. Callers that come at the same time share an fsync.
    ///
    /// # Errors
    /// When it is not stored, or nobody knows; it may be sent again without harm.
    pub async fn accept_delivery(&self, delivery: Delivery) -> Result<Accepted, StoreError> {
        self.inner.writer.submit(delivery).await
    }

    /// Deliveries that are not processed, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn pending_deliveries(&self, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        inbox::pending(&self.inner.reads, limit).await
    }

    /// The fleet as it was stored.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn load(&self) -> Result<Stored, StoreError> {
        fleet::load(&self.inner.reads).await
    }

    /// Effects that are not done, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn pending_effects(&self) -> Result<Vec<Effect>, StoreError> {
        fleet::pending_effects(&self.inner.reads).await
    }

    /// Stores a batch in one transaction; durable on return. Returns the timeline entries with their
    /// numbers, their times rounded down to the microsecond as they are stored.
    ///
    /// # Errors
    /// When it is not stored; then none of it is.
    pub async fn commit(&self, batch: Batch) -> Result<Vec<StoredEntry>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.writer.submit(batch).await
    }

    /// Timeline entries, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn timeline(&self, query: TimelineQuery) -> Result<Vec<StoredEntry>, StoreError> {
        timeline::read(&self.inner.reads, &query).await
    }

    /// A job, also if the core has forgotten it; until it is pruned.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        fleet::job(&self.inner.reads, id).await
    }

    /// The newest runner with this launch id, name or instance id, also if the core has forgotten it;
    /// until it is pruned.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn runner(&self, text: &str) -> Result<Option<Runner>, StoreError> {
        fleet::runner(&self.inner.reads, text).await
    }

    /// Stores a join token. Unused tokens of the same launch stop working.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn put_join_token(&self, token: JoinToken) -> Result<(), StoreError> {
        self.inner.writer.submit(token).await
    }

    /// Uses a token, if it is good. A compare-and-set: of any number of callers one gets `Now`.
    ///
    /// # Errors
    /// When the outcome can't be stored; the token may be used or not.
    pub async fn redeem_join_token(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<Redeemed, StoreError> {
        self.inner.writer.submit(Redeem { hash, now }).await
    }

    /// Stores a batch of launches, or what came of it; durable on return.
    ///
    /// # Errors
    /// When it is not stored, or nobody knows; it may be stored again without harm.
    pub async fn put_launch_batch(&self, batch: LaunchBatch) -> Result<(), StoreError> {
        self.inner.writer.submit(batch).await
    }

    /// The batches of an account that are not settled, and all that were made after a time, oldest
    /// first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn launch_batches(
        &self,
        account: &AccountName,
        after: Timestamp,
    ) -> Result<Vec<LaunchBatch>, StoreError> {
        batches::batches(&self.inner.reads, account, after).await
    }

    /// Lets an instance enrol, if it is the first time. A compare-and-set: of any number of callers
    /// with different keys one gets `Now`.
    ///
    /// # Errors
    /// When the outcome can't be stored; the instance may have enrolled or not.
    pub async fn claim_enrolment(&self, enrolment: Enrolment) -> Result<Claimed, StoreError> {
        self.inner.writer.submit(enrolment).await
    }

    /// Records what an operator did.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn record_action(&self, action: OperatorAction) -> Result<(), StoreError> {
        self.inner.writer.submit(action).await
    }

    /// What operators did, newest first.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn actions(&self, limit: u32) -> Result<Vec<OperatorAction>, StoreError> {
        journal::actions(&self.inner.reads, limit).await
    }

    /// A small named value, such as how far a reconciliation got.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        journal::note(&self.inner.reads, name).await
    }

    /// Sets a small named value.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn set_note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let note = Note {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        self.inner.writer.submit(note).await
    }

    /// Deletes what is older than `before` and not needed: bodies of processed deliveries (their
    /// guids three days later), forgotten jobs and runners, timeline entries, join tokens and
    /// enrolments of launches that are over. Operators' actions stay. Done in chunks; other writes pass in between.
    ///
    /// # Errors
    /// When it can't be done; a part of it may be.
    pub async fn prune(&self, before: Timestamp) -> Result<Pruned, StoreError> {
        prune::prune(&self.inner.writer, before).await
    }
}
