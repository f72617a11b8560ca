//! Which jobs and runners decisions are about. An hour's worth of others is only remembered, and a busy
//! coordinator decides hundreds of times a second.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Fleet;
use super::turn::Turn;
use crate::event::JobStatus;
use crate::ids::{JobId, LaunchId, PoolName};
use crate::job::{Decision, Job};
use crate::matching::Shape;
use crate::runner::{Runner, Stage};

/// Jobs that have not ended, and runners that are not gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Current {
    /// Each with the demand that it is counted under, if it is demand.
    jobs: BTreeMap<JobId, Option<Demand>>,
    runners: BTreeSet<LaunchId>,
    /// Jobs that wait, by pool and shape, the oldest first; no set is empty.
    demand: BTreeMap<PoolName, BTreeMap<Shape, BTreeSet<(Timestamp, JobId)>>>,
}

/// What a job that waits is counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Demand {
    pool: PoolName,
    shape: Shape,
    queued_at: Timestamp,
}

impl Current {
    pub(super) fn of(jobs: &BTreeMap<JobId, Job>, runners: &BTreeMap<LaunchId, Runner>) -> Self {
        let mut current = Self::default();
        for job in jobs.values() {
            current.note_job(job.id(), Some(job));
        }
        for runner in runners.values() {
            current.note_runner(&runner.launch, Some(runner));
        }
        current
    }

    fn note_job(&mut self, id: JobId, job: Option<&Job>) {
        if let Some(Some(old)) = self.jobs.remove(&id)
            && let Some(shapes) = self.demand.get_mut(&old.pool)
            && let Some(waiting) = shapes.get_mut(&old.shape)
        {
            waiting.remove(&(old.queued_at, id));
            if waiting.is_empty() {
                shapes.remove(&old.shape);
            }
            if shapes.is_empty() {
                self.demand.remove(&old.pool);
            }
        }
        let Some(job) = job.filter(|job| job.status() != JobStatus::Completed) else {
            return;
        };
        let demand = match &job.decision {
            Decision::Served { pool, shape } if job.is_demand() => Some(Demand {
                pool: pool.clone(),
                shape: shape.clone(),
                queued_at: job.queued_at(),
            }),
            _ => None,
        };
        if let Some(new) = &demand {
            let shapes = self.demand.entry(new.pool.clone()).or_default();
            let waiting = shapes.entry(new.shape.clone()).or_default();
            waiting.insert((new.queued_at, id));
        }
        self.jobs.insert(id, demand);
    }

    fn note_runner(&mut self, launch: &LaunchId, runner: Option<&Runner>) {
        if runner.is_some_and(|runner| runner.stage() != Stage::Gone) {
            self.runners.insert(launch.clone());
        } else {
            self.runners.remove(launch);
        }
    }

    /// The jobs that wait for a pool, by shape, the oldest first.
    pub(super) fn demand(
        &self,
        pool: &PoolName,
    ) -> impl Iterator<Item = (&Shape, &BTreeSet<(Timestamp, JobId)>)> {
        self.demand.get(pool).into_iter().flatten()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.runners.is_empty()
    }

    /// Notes a runner that is new.
    pub(super) fn add_runner(&mut self, launch: LaunchId) {
        self.runners.insert(launch);
    }

    /// The launches of the runners.
    pub(super) fn launches(&self) -> impl Iterator<Item = &LaunchId> {
        self.runners.iter()
    }
}

impl Fleet {
    /// The jobs that have not ended.
    pub(crate) fn open_jobs(&self) -> impl Iterator<Item = &Job> {
        let ids = self.current.jobs.keys();
        ids.filter_map(|id| self.jobs.get(id))
    }

    /// The runners that are not gone.
    pub(crate) fn present_runners(&self) -> impl Iterator<Item = &Runner> {
        let launches = self.current.runners.iter();
        launches.filter_map(|launch| self.runners.get(launch))
    }

    /// Brings up to date what is current, by what has changed.
    pub(super) fn note_current(&mut self, turn: &Turn) {
        let changes = &turn.changes;
        for id in changes.jobs.iter().chain(&changes.forgotten_jobs) {
            self.current.note_job(*id, self.jobs.get(id));
        }
        for launch in changes.runners.iter().chain(&changes.forgotten_runners) {
            self.current.note_runner(launch, self.runners.get(launch));
        }
    }
}
