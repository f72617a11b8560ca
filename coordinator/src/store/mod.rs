//! What must survive: the inbox, the fleet, the outbox, the timeline, tokens and operators' actions.
//!
//! One task writes; what waits for it at the same time shares a transaction (`writer`). Reads have
//! their own connections and see what is committed. Beyond this door there is no SQL.

mod backup;
mod batches;
mod change;
mod checkpoint;
mod codec;
mod database;
mod deliveries;
mod enrolments;
mod error;
mod fence;
#[cfg(test)]
pub(crate) mod fixtures;
mod fleet;
mod inbox;
mod journal;
mod lease;
mod ledger;
mod prune;
mod retention;
mod schema;
#[cfg(test)]
mod tests;
mod timeline;
mod tokens;
mod types;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use muster_core::{AccountName, Effect, Job, JobId, Runner, Stored};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use backup::{BackupError, Restored, Stop, backup, restore};
pub use database::postgres::{Limits, PostgresSettings};
pub use error::StoreError;
pub use lease::{Leadership, LeaseTimes};
pub use ledger::Ledger;
pub use retention::{NotPruned, Retention};
pub use types::{
    Accepted, Batch, BatchId, Claimed, Delivery, Enrolment, JoinToken, LaunchBatch, OperatorAction,
    Pruned, Redeemed, StoredEntry, TimelineQuery,
};

use database::postgres::Server;
use database::{Database, Durable, Readers, sqlite};
use fence::Fence;
use journal::{LeadConfirmed, Note};
use lease::Lease;
use tokens::Redeem;
use writer::Writer;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    fence: Arc<Fence>,
    writer: Writer,
    reads: Readers,
    /// Keeps another coordinator out of the directory of the file until the last clone is dropped.
    _lock: Option<sqlite::Lock>,
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
    /// When the file can't be opened, another coordinator has it or one in its directory open, or its schema is newer than
    /// this program.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_file(Durable::at(path)).await
    }

    async fn open_file(mut file: Durable) -> Result<Self, StoreError> {
        let lock = sqlite::lock(&file.path)?;
        file.create()?;
        let database = Database::Sqlite(file);
        let mut db = database.connect().await?;
        schema::migrate(&mut db).await?;
        Self::start(database, db, Some(lock)).await
    }

    /// Opens a PostgreSQL database, and brings its schema up to date. Must be called inside a tokio runtime.
    /// Until [`Store::lead`] has answered, nothing but deliveries can be written.
    ///
    /// # Errors
    /// When the settings are wrong, the server can't be reached ([`StoreError::passes`]), or its schema is
    /// newer than this program.
    pub async fn connect(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let server = Server::new(settings)?;
        let mut db = Database::Postgres(server.for_migrations())
            .connect()
            .await?;
        schema::migrate(&mut db).await?;
        db.close().await?;
        let database = Database::Postgres(server);
        let db = database.connect().await?;
        Self::start(database, db, None).await
    }

    async fn start(
        database: Database,
        db: database::Connection,
        lock: Option<sqlite::Lock>,
    ) -> Result<Self, StoreError> {
        let reads = database.readers().await?;
        let fence = Arc::new(Fence::default());
        Ok(Self {
            inner: Arc::new(Inner {
                writer: Writer::start(db, database.clone(), Arc::clone(&fence)),
                database,
                fence,
                reads,
                _lock: lock,
            }),
        })
    }

    /// Waits until this coordinator leads, and says so; at once for a file, which has one user. `holder` must
    /// name this start of this process and no other. Outages are waited out. To wait no longer, drop it.
    ///
    /// # Errors
    /// When the lease can't be read for a reason that doesn't pass.
    pub async fn lead(&self, holder: &str, times: LeaseTimes) -> Result<Leadership, StoreError> {
        if let Database::Sqlite(_) = &self.inner.database {
            return Ok(Leadership::of_file());
        }
        let lease = Lease {
            database: self.inner.database.clone(),
            fence: Arc::clone(&self.inner.fence),
            holder: holder.to_owned(),
            times,
        };
        lease.take().await
    }

    /// Calls `ready` whenever another coordinator may have stored a delivery, until it is told to stop. With
    /// a file there is no other.
    pub async fn watch_deliveries(&self, ready: impl Fn() + Send, stop: CancellationToken) {
        match &self.inner.database {
            Database::Sqlite(_) => stop.cancelled().await,
            Database::Postgres(server) => deliveries::watch(server.clone(), ready, stop).await,
        }
    }

    /// Whether the last write went well. During an outage the store looks by itself whether it is over.
    #[must_use]
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.inner.writer.writable()
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
        fleet::load(&self.inner.database, &self.inner.reads).await
    }

    /// Effects that are not done, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn pending_effects(&self) -> Result<Vec<Effect>, StoreError> {
        fleet::pending_effects(&self.inner.reads).await
    }

    /// Stores a batch in one transaction; durable on return. Returns the timeline entries with their
    /// numbers, their times rounded down to the microsecond as they are stored. If it is the batch that was
    /// stored last, by its id, nothing changes.
    ///
    /// # Errors
    /// When it is not stored, then none of it is; or when nobody knows ([`StoreError::Unknown`]), then it may
    /// be stored again without harm as long as no other was.
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

    /// Whether a batch of launches was stored under this token.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn has_launch_batch(&self, token: &str) -> Result<bool, StoreError> {
        batches::has(&self.inner.reads, token).await
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

    /// Makes sure that this coordinator leads still: for what is to be done at most once, and can't be told from what
    /// another did, right before it is done. A file has one leader always.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] when another leads; others when nobody knows.
    pub async fn confirm_lead(&self) -> Result<(), StoreError> {
        self.inner.writer.submit(LeadConfirmed).await
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
