//! Which jobs and runners decisions are about. An hour's worth of others is only remembered, and a busy
//! coordinator decides hundreds of times a second.

use std::collections::{BTreeMap, BTreeSet};

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
    jobs: BTreeMap<JobId, Option<(PoolName, Shape)>>,
    runners: BTreeSet<LaunchId>,
    /// Jobs that wait, by pool and shape; none that is zero.
    demand: BTreeMap<PoolName, BTreeMap<Shape, u32>>,
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
        if let Some(Some((pool, shape))) = self.jobs.remove(&id)
            && let Some(shapes) = self.demand.get_mut(&pool)
            && let Some(count) = shapes.get_mut(&shape)
        {
            *count -= 1;
            if *count == 0 {
                shapes.remove(&shape);
            }
            if shapes.is_empty() {
                self.demand.remove(&pool);
            }
        }
        let Some(job) = job.filter(|job| job.status() != JobStatus::Completed) else {
            return;
        };
        let demand = match &job.decision {
            Decision::Served { pool, shape } if job.is_demand() => {
                Some((pool.clone(), shape.clone()))
            }
            _ => None,
        };
        if let Some((pool, shape)) = demand.clone() {
            *self
                .demand
                .entry(pool)
                .or_default()
                .entry(shape)
                .or_default() += 1;
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

    /// How many jobs wait for a pool, by shape.
    pub(super) fn demand(&self, pool: &PoolName) -> impl Iterator<Item = (&Shape, u32)> {
        let shapes = self.demand.get(pool).into_iter().flatten();
        shapes.map(|(shape, count)| (shape, *count))
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
