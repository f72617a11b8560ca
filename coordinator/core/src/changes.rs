//! What one event changed: what to store, what to do, what to tell.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::event::JobStatus;
use crate::ids::{JobId, LaunchId, PoolName, RunnerName};
use crate::loss::Loss;
use crate::rerun::RerunAnswer;
use crate::trouble::Trouble;

/// The outcome of [`crate::Fleet::apply`]. All of it is stored in one transaction, then the effects
/// are carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is to be done, in order.
    pub effects: Vec<Effect>,
    /// What happened, in order.
    pub timeline: Vec<TimelineEntry>,
    /// Jobs whose record changed.
    pub jobs: BTreeSet<JobId>,
    /// Jobs that reached another status, in order; a job may skip some.
    pub moved_jobs: Vec<(JobId, JobStatus)>,
    /// What GitHub has that we should have heard of, and had not.
    pub differences: Vec<Difference>,
    /// What became of requests to run interrupted jobs again, in order.
    pub reruns: Vec<RerunAnswer>,
    /// Troubles that agents told of, in order.
    pub troubles: Vec<Trouble>,
    /// Hosts that ended otherwise than they should, in order.
    pub losses: Vec<Loss>,
    /// Pools whose canary was stopped, in order.
    pub stopped_canaries: Vec<PoolName>,
    /// Runners whose record changed.
    pub runners: BTreeSet<LaunchId>,
    /// Pools whose state changed.
    pub pools: BTreeSet<PoolName>,
    /// Jobs that the core forgets; their record may leave the store's working set.
    pub forgotten_jobs: BTreeSet<JobId>,
    /// Runners that the core forgets.
    pub forgotten_runners: BTreeSet<LaunchId>,
    /// Events, or parts of them, that don't fit the state and had no effect, with the reason.
    pub refused: Vec<String>,
}

impl Changes {
    /// Adds what changed after this.
    pub(crate) fn append(&mut self, later: Self) {
        self.jobs.retain(|id| !later.forgotten_jobs.contains(id));
        self.runners
            .retain(|launch| !later.forgotten_runners.contains(launch));
        self.effects.extend(later.effects);
        self.timeline.extend(later.timeline);
        self.jobs.extend(later.jobs);
        self.moved_jobs.extend(later.moved_jobs);
        self.differences.extend(later.differences);
        self.reruns.extend(later.reruns);
        self.troubles.extend(later.troubles);
        self.losses.extend(later.losses);
        self.stopped_canaries.extend(later.stopped_canaries);
        self.runners.extend(later.runners);
        self.pools.extend(later.pools);
        // What is heard of again is not forgotten.
        self.forgotten_jobs.retain(|id| !self.jobs.contains(id));
        self.forgotten_jobs.extend(later.forgotten_jobs);
        self.forgotten_runners
            .retain(|launch| !self.runners.contains(launch));
        self.forgotten_runners.extend(later.forgotten_runners);
        self.refused.extend(later.refused);
    }

    /// True if nothing needs to be stored or done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Something in which GitHub differed from what we had heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A job that no webhook had told of.
    Job,
    /// A job that had moved on.
    Status,
    /// A job that is not there any more.
    DeletedJob,
    /// A registration whose launch is over.
    LeftRunner,
    /// A registration that is not there any more.
    LostRunner,
}

impl Difference {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Job,
        Self::Status,
        Self::DeletedJob,
        Self::LeftRunner,
        Self::LostRunner,
    ];
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// What, in a word or two: `queued`, `launched`, `job started`.
    pub what: String,
    /// The details, for people.
    pub detail: String,
    /// The pool it is about.
    pub pool: Option<PoolName>,
    /// The launch it is about.
    pub launch: Option<LaunchId>,
    /// The runner it is about.
    pub runner: Option<RunnerName>,
    /// The job it is about.
    pub job: Option<JobId>,
}
