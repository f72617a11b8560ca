//! What a pool holds and lacks at one moment.

use crate::ids::PoolName;

/// The figures of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Jobs that wait for a runner of this pool.
    pub queued_jobs: u32,
    /// Launches that don't listen yet and will take a job once they do.
    pub booting: u32,
    /// Runners that wait for a job and may take one.
    pub idle: u32,
    /// Runners with a job.
    pub busy: u32,
    /// Instances on their way out, drained ones without a job included.
    pub ending: u32,
    /// Instances that the pool may have.
    pub maximum: u32,
    /// Whether jobs wait for want of room: the pool, or its account, has all instances that it may have, and none of
    /// them is for these jobs.
    pub exhausted: bool,
    /// What keeps the pool from launching what it lacks.
    pub limited_by: Option<String>,
    /// How its canary stands.
    pub canary: CanaryStanding,
}

/// How the canary of a pool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CanaryStanding {
    /// There is none, or its image is not known yet.
    #[default]
    None,
    /// It takes its share of the launches.
    OnTrial,
    /// It failed too often and takes no launch any more.
    Stopped,
}

impl PoolFigures {
    /// All instances that exist or may exist.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.booting + self.idle + self.busy + self.ending
    }
}

/// Why a job waits, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// What each pool says, in declared order.
    pub pools: Vec<PoolVerdict>,
    /// What happens next.
    pub next: String,
}

/// What one pool says to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolVerdict {
    /// The pool.
    pub pool: PoolName,
    /// Whether it takes the job.
    pub accepts: bool,
    /// Why not, or what limits it at present; empty if nothing does.
    pub reason: String,
}
