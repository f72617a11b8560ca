//! What each pool holds, what it lacks, and the launches that follow.
//!
//! Demand is counted by pool and shape, as GitHub, not we, gives a job to a runner.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Fleet;
use super::turn::Turn;
use crate::effect::Effect;
use crate::figures::{CanaryStanding, PoolFigures};
use crate::ids::{LaunchId, PoolName, RunnerName};
use crate::matching::Shape;
use crate::pool::{Hold, PoolSpec};
use crate::runner::{Runner, Stage};

/// How long a runner that is busy with a job that GitHub has not named counts as serving one of the
/// queued jobs. Webhooks come after 2 s at the median and 162 s at the 95th percentile
/// (<https://carbonrunner.io/stats>); after this, the job is taken to be one nobody announced.
const UNNAMED: Duration = Duration::from_secs(180);

/// A launch that has no instance after this long is held up, and withdrawn if nobody needs it. Before, its
/// instance is most likely being made.
const HELD_UP: Duration = Duration::from_secs(60);

/// What a pool has and nobody needs.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    /// Launches that are held up, newest first.
    pub(super) launching: Vec<LaunchId>,
    /// Hosts that have waited too long to be registered, and then runners that have been idle for too long; of each the
    /// oldest first.
    pub(super) waiting: Vec<LaunchId>,
}

/// What a pool lacks of one shape.
#[derive(Clone, Copy, Debug, Default)]
struct Balance {
    wanted: u32,
    supply: u32,
    /// Busy runners whose job is most likely still counted as queued.
    unnamed: u32,
    /// Of those that are wanted, those that no job waits for.
    idle: u32,
}

impl Balance {
    fn missing(self) -> u32 {
        self.wanted.saturating_sub(self.supply)
    }

    /// Without those that no job waits for.
    fn missing_for_jobs(self) -> u32 {
        let wanted = self.wanted.saturating_sub(self.idle);
        wanted.saturating_sub(self.supply)
    }
}

impl Fleet {
    /// Launches what the pools lack, as far as their limits and their account's allow.
    pub(super) fn launch_what_lacks(&mut self, turn: &mut Turn) {
        for index in 0..self.spec.pools.len() {
            let pool = &self.spec.pools[index];
            if self.barred(pool, turn.now).is_some() {
                continue;
            }
            let room = self.room(pool);
            if room == 0 {
                continue;
            }
            let mut missing = self.lacking(pool, turn.now);
            missing.retain(|(shape, _)| self.held(pool, shape, turn.now).is_none());
            if missing.iter().map(|(_, missing)| missing).sum::<u32>() > room {
                missing = self.oldest_first(pool, missing, room);
            }
            for (shape, count) in missing {
                for _ in 0..count {
                    self.launch(index, shape.clone(), turn);
                }
            }
        }
    }

    /// What there is room for of what a pool lacks: what the jobs need that have waited the longest,
    /// whatever their shape, and then what should wait idle.
    fn oldest_first(
        &self,
        pool: &PoolSpec,
        missing: Vec<(Shape, u32)>,
        room: u32,
    ) -> Vec<(Shape, u32)> {
        let mut lacking = Vec::new();
        for (index, (shape, missing)) in missing.iter().enumerate() {
            let mut shapes = self.current.demand(&pool.name);
            let waiting = shapes.find(|(waiting, _)| *waiting == shape);
            // What is there already serves the oldest.
            let newest = waiting.into_iter().flat_map(|(_, jobs)| jobs.iter().rev());
            let since = newest.map(|(queued_at, _)| *queued_at);
            let since = since.chain(std::iter::repeat(Timestamp::MAX));
            lacking.extend(since.take(as_count(*missing)).map(|since| (since, index)));
        }
        lacking.sort_unstable();
        let mut launches = missing;
        for (_, count) in &mut launches {
            *count = 0;
        }
        for (_, index) in lacking.into_iter().take(as_count(room)) {
            launches[index].1 += 1;
        }
        launches
    }

    fn launch(&mut self, pool: usize, shape: Shape, turn: &mut Turn) {
        let launch = self.new_launch();
        let (trialed, image) = self.take_part(pool, turn);
        let pool = &self.spec.pools[pool];
        let mut runner = Runner::new(launch.clone(), pool, shape.clone(), turn.now);
        runner.trialed = trialed;
        let detail = image
            .as_ref()
            .map(|image| format!("from the canary {image}"));
        turn.emit(Effect::Launch {
            launch: launch.clone(),
            pool: pool.name.clone(),
            shape,
            image,
        });
        turn.tell(&runner, "launch decided", detail.unwrap_or_default());
        self.names.insert(runner.name.clone(), launch.clone());
        self.current.add_runner(&runner);
        self.runners.insert(launch, runner);
    }

    /// A launch id that no launch has.
    pub(super) fn new_launch(&mut self) -> LaunchId {
        loop {
            let launch = self.ids.next();
            if !self.runners.contains_key(&launch) {
                return launch;
            }
        }
    }

    /// The balance of a pool, by shape.
    fn balances(&self, pool: &PoolSpec, now: Timestamp) -> BTreeMap<Shape, Balance> {
        let mut balances: BTreeMap<Shape, Balance> = BTreeMap::new();
        for (shape, waiting) in self.current.demand(&pool.name) {
            balances.entry(shape.clone()).or_default().wanted = count(waiting.len());
        }
        for runner in self.runners_of(&pool.name) {
            let balance = balances.entry(runner.shape.clone()).or_default();
            match runner.stage() {
                _ if runner.drain.is_some() && runner.stage() < Stage::Busy => {}
                Stage::Launching
                | Stage::Booting
                | Stage::Enrolled
                | Stage::Starting
                | Stage::Idle => balance.supply += 1,
                Stage::Busy if unnamed(runner, now) => balance.unnamed += 1,
                Stage::Busy | Stage::Found | Stage::Ending | Stage::Gone => {}
            }
        }
        for (shape, balance) in &mut balances {
            balance.wanted = balance.wanted.saturating_sub(balance.unnamed);
            if *shape == Shape::default() {
                balance.wanted += pool.min_idle;
                balance.idle = pool.min_idle;
            }
        }
        if pool.min_idle > 0 {
            balances.entry(Shape::default()).or_insert(Balance {
                wanted: pool.min_idle,
                idle: pool.min_idle,
                ..Balance::default()
            });
        }
        balances
    }

    /// The runners of a pool that are not gone.
    fn runners_of<'a>(&'a self, pool: &'a PoolName) -> impl Iterator<Item = &'a Runner> {
        let launches = self.current.launches_of(pool);
        launches.filter_map(|launch| self.runners.get(launch))
    }

    /// How many more instances a pool may have.
    fn room(&self, pool: &PoolSpec) -> u32 {
        let in_pool = self.current.held_by_pool(&pool.name);
        let in_account = self.current.held_by_account(&pool.account);
        let account_max = self.spec.accounts.get(&pool.account).copied().unwrap_or(0);
        left(pool.max, in_pool).min(left(account_max, in_account))
    }

    /// Why a pool launches nothing at all at present.
    fn barred(&self, pool: &PoolSpec, now: Timestamp) -> Option<String> {
        if let Some(awaited) = self.awaits_listing(&pool.account) {
            return Some(awaited);
        }
        let state = self.pools.get(&pool.name)?;
        if let Some(paused) = &state.paused {
            return Some(format!("paused: {paused}"));
        }
        let until = state.closed_until.filter(|until| *until > now)?;
        let why = state.last_failure.as_deref().unwrap_or("launches failed");
        Some(format!("launches are held back until {until:.0}: {why}"))
    }

    /// What holds back the launches of one shape at present.
    pub(crate) fn held(&self, pool: &PoolSpec, shape: &Shape, now: Timestamp) -> Option<&Hold> {
        let state = self.pools.get(&pool.name)?;
        let mut holds = state.held.iter();
        holds.find(|hold| hold.shape == *shape && hold.until > now)
    }

    /// Counts a pool.
    pub(crate) fn count(&self, pool: &PoolSpec, now: Timestamp) -> PoolFigures {
        let mut figures = PoolFigures {
            queued_jobs: self
                .current
                .demand(&pool.name)
                .map(|(_, waiting)| count(waiting.len()))
                .sum(),
            maximum: pool.max,
            ..PoolFigures::default()
        };
        for runner in self.runners_of(&pool.name) {
            match runner.stage() {
                Stage::Busy | Stage::Found => figures.busy += 1,
                Stage::Ending if !runner.instance_is_gone() => figures.ending += 1,
                Stage::Ending | Stage::Gone => {}
                _ if runner.drain.is_some() => figures.ending += 1,
                Stage::Idle => figures.idle += 1,
                Stage::Launching | Stage::Booting | Stage::Enrolled | Stage::Starting => {
                    figures.booting += 1;
                }
            }
        }
        let lacking = self.lacking(pool, now);
        let (held, free): (Vec<_>, Vec<_>) = lacking
            .into_iter()
            .partition(|(shape, _)| self.held(pool, shape, now).is_some());
        let full = self.full(pool, free.iter().map(|(_, missing)| missing).sum());
        let for_jobs = self.balances(pool, now).into_iter();
        let for_jobs = for_jobs
            .filter(|(shape, _)| self.held(pool, shape, now).is_none())
            .map(|(_, balance)| balance.missing_for_jobs())
            .sum();
        figures.exhausted = self.full(pool, for_jobs).is_some();
        figures.limited_by = if held.is_empty() && free.is_empty() {
            None
        } else {
            let held = || self.held(pool, &held.first()?.0, now).map(Hold::to_string);
            self.barred(pool, now).or(full).or_else(held)
        };
        let state = self.pools.get(&pool.name);
        figures.canary = match state.and_then(|state| state.trial.as_ref()) {
            None => CanaryStanding::None,
            Some(trial) if trial.stopped.is_some() => CanaryStanding::Stopped,
            Some(_) => CanaryStanding::OnTrial,
        };
        figures
    }

    /// What a pool lacks, by shape.
    fn lacking(&self, pool: &PoolSpec, now: Timestamp) -> Vec<(Shape, u32)> {
        let balances = self.balances(pool, now).into_iter();
        balances
            .map(|(shape, balance)| (shape, balance.missing()))
            .filter(|(_, missing)| *missing > 0)
            .collect()
    }

    /// What keeps a pool from launching one more of a shape.
    pub(crate) fn limit_of(
        &self,
        pool: &PoolSpec,
        shape: &Shape,
        now: Timestamp,
    ) -> Option<String> {
        let held = || self.held(pool, shape, now).map(Hold::to_string);
        let barred = self.barred(pool, now).or_else(held);
        let missing = self
            .balances(pool, now)
            .get(shape)
            .map_or(0, |it| it.missing());
        barred
            .filter(|_| missing > 0)
            .or_else(|| self.full(pool, missing))
    }

    /// Why a pool has no room for so many.
    fn full(&self, pool: &PoolSpec, missing: u32) -> Option<String> {
        if self.room(pool) >= missing {
            return None;
        }
        let used = self.current.held_by_pool(&pool.name);
        if left(pool.max, used) < missing {
            return Some(format!(
                "the pool has {used} of at most {} instances",
                pool.max
            ));
        }
        let max = self.spec.accounts.get(&pool.account).copied().unwrap_or(0);
        Some(format!("account {} has its {max} instances", pool.account))
    }

    /// Runners that nobody needs any more.
    pub(super) fn surplus(&self, pool: &PoolSpec, now: Timestamp) -> Surplus {
        let mut surplus = Surplus::default();
        for (shape, balance) in self.balances(pool, now) {
            let excess = as_count(balance.supply.saturating_sub(balance.wanted));
            if excess == 0 {
                continue;
            }
            let longer_than = |stage, time| {
                let all = self.runners_of(&pool.name);
                let mut some: Vec<&Runner> = all
                    .filter(|r| r.shape == shape && r.stage() == stage && r.drain.is_none())
                    .filter(|r| elapsed(r.marks.stage_since, now) >= time)
                    .collect();
                some.sort_by_key(|runner| runner.marks.stage_since);
                let launches = some.into_iter().map(|runner| runner.launch.clone());
                launches.collect::<Vec<_>>()
            };
            let launching = longer_than(Stage::Launching, HELD_UP);
            let enrolled = longer_than(Stage::Enrolled, pool.limits.start);
            let idle = longer_than(Stage::Idle, pool.limits.idle);
            let newest = launching.into_iter().rev().take(excess);
            let before = surplus.launching.len();
            surplus.launching.extend(newest);
            let left = excess - (surplus.launching.len() - before);
            let waiting = enrolled.into_iter().chain(idle);
            surplus.waiting.extend(waiting.take(left));
        }
        surplus
    }

    /// By pool and shape, a runner that has been idle for so long and may take a job.
    pub(super) fn long_idle(
        &self,
        now: Timestamp,
        wait: Duration,
    ) -> BTreeMap<(&PoolName, &Shape), &RunnerName> {
        self.present_runners()
            .filter(|runner| runner.stage() == Stage::Idle && runner.drain.is_none())
            .filter(|runner| elapsed(runner.marks.stage_since, now) >= wait)
            .map(|runner| ((&runner.pool, &runner.shape), &runner.name))
            .collect()
    }

    pub(super) fn pause(&mut self, pool: &PoolName, paused: Option<String>, turn: &mut Turn) {
        let Some(spec) = self.pool(pool) else {
            turn.refuse(format!("there is no pool {pool}"));
            return;
        };
        let (what, detail) = match &paused {
            Some(reason) => ("paused", reason.clone()),
            None => ("resumed", String::new()),
        };
        turn.tell_pool(spec, what, detail);
        let state = self.pools.entry(pool.clone()).or_default();
        if paused.is_none() {
            state.closed_until = None;
            state.held.clear();
        }
        state.paused = paused;
        turn.changes.pools.insert(pool.clone());
    }
}

fn unnamed(runner: &Runner, now: Timestamp) -> bool {
    runner.job.is_none()
        && runner
            .marks
            .busy_at
            .is_some_and(|at| elapsed(at, now) < UNNAMED)
}

/// Time from one moment to a later one; zero if the clock went back.
pub(super) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

fn left(max: u32, used: usize) -> u32 {
    max.saturating_sub(count(used))
}

fn as_count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
