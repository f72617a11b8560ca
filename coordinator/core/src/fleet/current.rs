//! Which jobs and runners decisions are about. An hour's worth of others is only remembered, and a busy
//! coordinator decides hundreds of times a second.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Fleet;
use super::turn::Turn;
use crate::event::JobStatus;
use crate::ids::{AccountName, InstanceId, JobId, LaunchId, PoolName};
use crate::job::{Decision, Job};
use crate::matching::Shape;
use crate::runner::{Runner, Stage};

/// Jobs that have not ended, and runners that are not gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Current {
    /// Each with the demand that it is counted under, if it is demand.
    jobs: BTreeMap<JobId, Option<Demand>>,
    /// Each with what it is counted under.
    runners: BTreeMap<LaunchId, Whose>,
    /// The runners by pool; no set is empty.
    pools: BTreeMap<PoolName, BTreeSet<LaunchId>>,
    /// The runners by the instances that they have.
    instances: BTreeMap<(AccountName, InstanceId), LaunchId>,
    /// How many instances each pool and each account holds; none is nothing.
    held: BTreeMap<Holder, usize>,
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

/// What a runner is counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whose {
    pool: PoolName,
    account: AccountName,
    instance: Option<InstanceId>,
    /// Whether it has an instance, or is to have one.
    holds: bool,
}

/// Who has a limit on instances.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Pool(PoolName),
    Account(AccountName),
}

impl Whose {
    fn of(runner: &Runner) -> Self {
        Self {
            pool: runner.pool.clone(),
            account: runner.account.clone(),
            instance: runner.instance_id().cloned(),
            holds: !runner.instance_is_gone(),
        }
    }

    fn place(&self) -> Option<(AccountName, InstanceId)> {
        Some((self.account.clone(), self.instance.clone()?))
    }

    fn holders(&self) -> impl Iterator<Item = Holder> {
        let both = [
            Holder::Pool(self.pool.clone()),
            Holder::Account(self.account.clone()),
        ];
        both.into_iter().filter(|_| self.holds)
    }
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
        let new = runner
            .filter(|runner| runner.stage() != Stage::Gone)
            .map(Whose::of);
        if self.runners.get(launch) == new.as_ref() {
            return;
        }
        if let Some(old) = self.runners.remove(launch) {
            self.forget_runner(launch, &old);
        }
        let Some(new) = new else { return };
        for holder in new.holders() {
            *self.held.entry(holder).or_default() += 1;
        }
        if let Some(place) = new.place() {
            self.instances.insert(place, launch.clone());
        }
        let of_pool = self.pools.entry(new.pool.clone()).or_default();
        of_pool.insert(launch.clone());
        self.runners.insert(launch.clone(), new);
    }

    fn forget_runner(&mut self, launch: &LaunchId, old: &Whose) {
        for holder in old.holders() {
            if let Some(count) = self.held.get_mut(&holder) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&holder);
                }
            }
        }
        if let Some(place) = old.place()
            && self.instances.get(&place) == Some(launch)
        {
            self.instances.remove(&place);
        }
        if let Some(of_pool) = self.pools.get_mut(&old.pool) {
            of_pool.remove(launch);
            if of_pool.is_empty() {
                self.pools.remove(&old.pool);
            }
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
    pub(super) fn add_runner(&mut self, runner: &Runner) {
        self.note_runner(&runner.launch, Some(runner));
    }

    /// How many instances a pool holds.
    pub(super) fn held_by_pool(&self, pool: &PoolName) -> usize {
        let holder = Holder::Pool(pool.clone());
        self.held.get(&holder).copied().unwrap_or(0)
    }

    /// How many instances an account holds.
    pub(super) fn held_by_account(&self, account: &AccountName) -> usize {
        let holder = Holder::Account(account.clone());
        self.held.get(&holder).copied().unwrap_or(0)
    }

    /// The launch of the runner that has an instance.
    pub(super) fn launch_of(
        &self,
        account: &AccountName,
        instance: &InstanceId,
    ) -> Option<&LaunchId> {
        self.instances.get(&(account.clone(), instance.clone()))
    }

    /// The launches of a pool's runners.
    pub(super) fn launches_of(&self, pool: &PoolName) -> impl Iterator<Item = &LaunchId> {
        self.pools.get(pool).into_iter().flatten()
    }

    /// The launches of the runners.
    pub(super) fn launches(&self) -> impl Iterator<Item = &LaunchId> {
        self.runners.keys()
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
        let launches = self.current.runners.keys();
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
