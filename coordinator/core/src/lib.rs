//! Muster's decisions: which job a pool serves, what to launch, assign, drain and terminate.
//!
//! [`Fleet::apply`] is a function from an event and a time to [`Changes`]. It does no I/O, reads no
//! clock and holds no randomness but the seed it was given, so that the service, the tests and a
//! simulator drive the same decisions.

mod canary;
mod changes;
mod effect;
mod event;
mod explain;
mod figures;
#[cfg(test)]
mod fixtures;
mod fleet;
mod ids;
mod job;
mod job_report;
mod listed;
mod loss;
mod matching;
mod offering;
mod pool;
mod rerun;
mod runner;
mod trouble;

pub use canary::{CanaryRules, Sign, Stopped, Tally, Trial, Trialed};
pub use changes::{Changes, Difference, TimelineEntry};
pub use effect::Effect;
pub use event::{
    DeregisterAnswer, Event, HostPhase, Interruption, JobReport, JobStatus, LaunchFailure,
    MintFailure, Outcome, Registered, Repository,
};
pub use figures::{CanaryStanding, Explanation, PoolFigures, PoolVerdict};
pub use fleet::{Fleet, FleetSpec, Stored};
pub use ids::{
    AccountName, GithubRunnerId, ImageId, InstanceId, JobId, LaunchId, PoolName, RunnerName,
};
pub use job::{Closed, Decision, Job, Refusal};
pub use listed::{Marked, Origin};
pub use loss::Loss;
pub use matching::{Market, Shape};
pub use offering::Offering;
pub use pool::{Hold, PoolSpec, PoolState, Scope, SizeRules, TimeLimits};
pub use rerun::{
    Cause, CutShort, Lineage, Rerun, RerunAnswer, RerunCall, RerunPolicy, RunAttempt, RunSeen,
};
pub use runner::{Drain, Illegal, Instance, Marks, Registration, Runner, Stage, Work};
pub use trouble::Trouble;
