//! What must survive: the inbox, the fleet, the outbox, the timeline, tokens and operators' actions.

use std::path::Path;

use jiff::Timestamp;
use muster_core::{
    Effect, InstanceId, Job, JobId, LaunchId, PoolName, PoolState, Runner, Stored, TimelineEntry,
};
use thiserror::Error;

/// The store.
#[derive(Clone, Debug)]
pub struct Store {}

/// The store can't do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database refuses, is broken or full.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Its schema is newer than this program, or damaged.
    #[error("schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// A stored record can't be read.
    #[error("stored {kind} {key} can't be read: {detail}")]
    Corrupt {
        /// What it is.
        kind: &'static str,
        /// Which one.
        key: String,
        /// Why not.
        detail: String,
    },
}

/// One webhook as GitHub sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// `X-GitHub-Delivery`; the same on redelivery.
    pub guid: String,
    /// `X-GitHub-Event`.
    pub event: String,
    /// The body.
    pub body: Vec<u8>,
    /// When it came.
    pub received_at: Timestamp,
}

/// Whether a delivery was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was stored.
    New,
    /// It was here before.
    Duplicate,
}

/// All that one or more events changed, stored in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Records of jobs to write.
    pub jobs: Vec<Job>,
    /// Records of runners to write.
    pub runners: Vec<Runner>,
    /// States of pools to write.
    pub pools: Vec<(PoolName, PoolState)>,
    /// Jobs to leave out at the next start; their rows stay for the timeline until pruned.
    pub forgotten_jobs: Vec<JobId>,
    /// Runners to leave out at the next start.
    pub forgotten_runners: Vec<LaunchId>,
    /// Entries to append.
    pub timeline: Vec<TimelineEntry>,
    /// Effects to carry out; one whose key is in the outbox already replaces it.
    pub effects: Vec<Effect>,
    /// Keys of effects that are done.
    pub finished_effects: Vec<String>,
    /// Deliveries that are processed, by guid.
    pub processed_deliveries: Vec<String>,
}

/// A timeline entry with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Grows with each entry.
    pub sequence: i64,
    /// The entry.
    pub entry: TimelineEntry,
}

/// Which timeline entries to read. Conditions add up; the runner and job conditions are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimelineQuery {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only of this launch.
    pub launch: Option<LaunchId>,
    /// Only of this pool.
    pub pool: Option<PoolName>,
    /// Only after this sequence number.
    pub after: Option<i64>,
    /// The newest so many, or with `after` the oldest so many. Always returned oldest first.
    pub limit: u32,
}

/// A one-time token for one launch; only its hash is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The launch it is for.
    pub launch: LaunchId,
    /// The pool of the launch.
    pub pool: PoolName,
    /// The instance it is for.
    pub instance: InstanceId,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// The outcome of presenting a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// It was good, and is used now. Exactly one caller ever gets this for a launch.
    Now(JoinToken),
    /// It, or another token of the same launch, was used before.
    Already,
    /// It is too old.
    Expired,
    /// There is no such token.
    Unknown,
}

/// One thing that an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAction {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub operator: String,
    /// The method.
    pub method: String,
    /// What it was about.
    pub target: String,
    /// The reason that was given.
    pub reason: String,
}

#[expect(clippy::unused_async, reason = "to be written")]
impl Store {
    /// Opens the SQLite file, makes it if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// When the file can't be opened or its schema is newer than this program.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let _ = path;
        Ok(Self {})
    }

    /// Stores a delivery; durable on return.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn accept_delivery(&self, delivery: Delivery) -> Result<Accepted, StoreError> {
        let _ = delivery;
        Ok(Accepted::New)
    }

    /// Deliveries that are not processed, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn pending_deliveries(&self, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// The fleet as it was stored.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn load(&self) -> Result<Stored, StoreError> {
        Ok(Stored::default())
    }

    /// Effects that are not done, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn pending_effects(&self) -> Result<Vec<Effect>, StoreError> {
        Ok(Vec::new())
    }

    /// Stores a batch in one transaction; durable on return. Returns the timeline entries with their
    /// numbers.
    ///
    /// # Errors
    /// When it is not stored; then none of it is.
    pub async fn commit(&self, batch: Batch) -> Result<Vec<StoredEntry>, StoreError> {
        let _ = batch;
        Ok(Vec::new())
    }

    /// Timeline entries, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn timeline(&self, query: TimelineQuery) -> Result<Vec<StoredEntry>, StoreError> {
        let _ = query;
        Ok(Vec::new())
    }

    /// Stores a join token. Unused tokens of the same launch stop working.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn put_join_token(&self, token: JoinToken) -> Result<(), StoreError> {
        let _ = token;
        Ok(())
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
        let _ = (hash, now);
        Ok(Redeemed::Unknown)
    }

    /// Records what an operator did.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn record_action(&self, action: OperatorAction) -> Result<(), StoreError> {
        let _ = action;
        Ok(())
    }

    /// What operators did, newest first.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn actions(&self, limit: u32) -> Result<Vec<OperatorAction>, StoreError> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// A small named value, such as how far a reconciliation got.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let _ = name;
        Ok(None)
    }

    /// Sets a small named value.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn set_note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let _ = (name, value);
        Ok(())
    }
}
