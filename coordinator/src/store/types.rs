//! The words of the store: what is put in, what comes out.

use std::fmt;

use jiff::Timestamp;
use muster_core::{
    AccountName, Effect, InstanceId, Job, JobId, LaunchId, PoolName, PoolState, Runner,
    TimelineEntry,
};

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

/// One call that makes several instances, as its provider records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchBatch {
    /// The client token of the call.
    pub token: String,
    /// The account that it is made in.
    pub account: AccountName,
    /// When it was stored first.
    pub created_at: Timestamp,
    /// True once it is known what came of it. It stays true.
    pub settled: bool,
    /// The request, and what came of it, in the provider's own form.
    pub record: String,
}

/// Names a batch, so that it has its effect once, however often it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchId(u128);

impl Default for BatchId {
    /// One that no other batch has.
    fn default() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// All that one or more events changed, stored in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Its name; a copy is the same batch.
    pub id: BatchId,
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
    /// Effects to carry out; one whose key is in the outbox already replaces it and keeps its place.
    /// Those that are not durable ([`Effect::is_durable`]) are left out.
    pub effects: Vec<Effect>,
    /// Keys of effects that are done. They leave the outbox before `effects` enter it, so that an
    /// effect may be finished and wanted again in one batch.
    pub finished_effects: Vec<String>,
    /// Deliveries that are processed, by guid.
    pub processed_deliveries: Vec<String>,
}

impl Batch {
    /// True if there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            id: _,
            jobs,
            runners,
            pools,
            forgotten_jobs,
            forgotten_runners,
            timeline,
            effects,
            finished_effects,
            processed_deliveries,
        } = self;
        jobs.is_empty()
            && runners.is_empty()
            && pools.is_empty()
            && forgotten_jobs.is_empty()
            && forgotten_runners.is_empty()
            && timeline.is_empty()
            && effects.is_empty()
            && finished_effects.is_empty()
            && processed_deliveries.is_empty()
    }
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

/// One instance that has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// AWS's id of its account.
    pub account_id: String,
    /// Its region.
    pub region: String,
    /// The instance.
    pub instance: InstanceId,
    /// When it was started, by EC2's word: another start is another enrolment.
    pub launched_at: Timestamp,
    /// The launch that it is of.
    pub launch: LaunchId,
    /// SHA-256 of the public key that it has.
    pub key_hash: [u8; 32],
    /// When it enrols.
    pub at: Timestamp,
}

/// The outcome of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the first. Exactly one caller ever gets this for a start of an instance, and for a launch.
    Now,
    /// It came before, with the same key, which only one can hold: the answer to it was lost.
    BySameKey,
    /// Somebody with another key was first.
    Already,
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

/// How many rows of each kind went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Deliveries that lost their body.
    pub bodies: u64,
    /// Deliveries that are not known any more.
    pub deliveries: u64,
    /// Jobs.
    pub jobs: u64,
    /// Runners.
    pub runners: u64,
    /// Timeline entries.
    pub timeline: u64,
    /// Join tokens.
    pub join_tokens: u64,
    /// Batches of launches.
    pub launch_batches: u64,
    /// Enrolments.
    pub enrolments: u64,
}
