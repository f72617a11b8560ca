//! The fleet: all jobs, runners and pools, and the one function that changes them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::changes::Changes;
use crate::event::Event;
use crate::figures::{Explanation, PoolFigures};
use crate::ids::{AccountName, JobId, LaunchId, LaunchIds, PoolName};
use crate::job::Job;
use crate::pool::{PoolSpec, PoolState};
use crate::runner::Runner;

/// What the fleet is configured to be.
#[derive(Clone, Debug)]
pub struct FleetSpec {
    /// The pools, in the order in which jobs are offered to them.
    pub pools: Vec<PoolSpec>,
    /// Most instances for each account.
    pub accounts: BTreeMap<AccountName, u32>,
}

/// What was stored of a fleet.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The jobs that were not forgotten.
    pub jobs: Vec<Job>,
    /// The runners that were not forgotten.
    pub runners: Vec<Runner>,
    /// The state of the pools.
    pub pools: BTreeMap<PoolName, PoolState>,
}

/// All jobs, runners and pools.
#[derive(Clone, Debug)]
pub struct Fleet {
    spec: FleetSpec,
    ids: LaunchIds,
    jobs: BTreeMap<JobId, Job>,
    runners: BTreeMap<LaunchId, Runner>,
    pools: BTreeMap<PoolName, PoolState>,
}

impl Fleet {
    /// A fleet in the state that was stored. `seed` must be random for each start of the process;
    /// launch ids are made from it. Apply [`Event::Restarted`] first.
    #[must_use]
    pub fn restore(spec: FleetSpec, stored: Stored, seed: u64) -> Self {
        let jobs = stored.jobs.into_iter().map(|job| (job.id(), job)).collect();
        let runners = stored
            .runners
            .into_iter()
            .map(|runner| (runner.launch.clone(), runner))
            .collect();
        Self {
            spec,
            ids: LaunchIds::new(seed),
            jobs,
            runners,
            pools: stored.pools,
        }
    }

    /// Takes one event at one time, and says what follows.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Changes {
        let _ = (event, now, &self.ids);
        Changes::default()
    }

    /// When [`Event::Tick`] is needed next, if nothing happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        None
    }

    /// The pools, in declared order.
    #[must_use]
    pub fn pools(&self) -> &[PoolSpec] {
        &self.spec.pools
    }

    /// The state of a pool.
    #[must_use]
    pub fn pool_state(&self, pool: &PoolName) -> PoolState {
        self.pools.get(pool).cloned().unwrap_or_default()
    }

    /// The figures of a pool.
    #[must_use]
    pub fn figures(&self, pool: &PoolName, now: Timestamp) -> PoolFigures {
        let _ = (pool, now);
        PoolFigures::default()
    }

    /// All jobs that are remembered.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// All runners that are remembered.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// One runner.
    #[must_use]
    pub fn runner(&self, launch: &LaunchId) -> Option<&Runner> {
        self.runners.get(launch)
    }

    /// The runner with this name, launch id or instance id.
    #[must_use]
    pub fn find_runner(&self, text: &str) -> Option<&Runner> {
        self.runners.values().find(|runner| {
            runner.name.as_str() == text
                || runner.launch.as_str() == text
                || runner.instance_id().is_some_and(|id| id.as_str() == text)
        })
    }

    /// Why a job waits, or what became of it.
    #[must_use]
    pub fn explain(&self, job: JobId, now: Timestamp) -> Option<Explanation> {
        let _ = (job, now);
        None
    }
}
