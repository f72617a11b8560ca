//! The fleet: all jobs, runners and pools, and the one function that changes them.

mod current;
mod demand;
mod ending;
mod forget;
mod found;
mod holds;
mod hosts;
mod jobs;
mod listing;
mod outcomes;
mod registrations;
mod reruns;
mod runs;
mod time;
mod trials;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use self::current::Current;
use self::jobs::Source;
use self::runs::Runs;
use self::turn::Turn;
use crate::changes::Changes;
use crate::event::Event;
use crate::figures::{Explanation, PoolFigures};
use crate::ids::{AccountName, InstanceId, JobId, LaunchId, LaunchIds, PoolName, RunnerName};
use crate::job::Job;
use crate::pool::{PoolSpec, PoolState, Scope};
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
    /// Instances of runners whose records this version can't read. They are nobody's, and no strays.
    pub unread: BTreeSet<InstanceId>,
}

/// All jobs, runners and pools.
#[derive(Clone, Debug)]
pub struct Fleet {
    spec: FleetSpec,
    ids: LaunchIds,
    jobs: BTreeMap<JobId, Job>,
    runners: BTreeMap<LaunchId, Runner>,
    pools: BTreeMap<PoolName, PoolState>,
    /// The jobs and runners that decisions are about, among those that are only remembered.
    current: Current,
    /// Each name that a runner has or had, as GitHub may still speak of an old one.
    names: BTreeMap<RunnerName, LaunchId>,
    /// Instances that the last listing of an account lacked or could not place, and since when. Only a
    /// further listing convicts.
    suspects: BTreeMap<AccountName, BTreeMap<InstanceId, Timestamp>>,
    /// Registrations that the last listing of a scope had and that no launch has, and since when.
    left_runners: BTreeMap<Scope, BTreeMap<RunnerName, Timestamp>>,
    /// Accounts whose instances are to be listed before anything is launched there.
    unlisted: BTreeMap<AccountName, Option<String>>,
    /// The jobs by their runs.
    runs: Runs,
    /// Pools whose images were told since the start: a stored canary may be none any more.
    images_told: BTreeSet<PoolName>,
    /// Jobs that the events before have changed that are taken together with this one, and stored with it.
    changed_before: BTreeSet<JobId>,
    /// Instances of runners that this version can't read: left alone.
    unread: BTreeSet<InstanceId>,
    /// From when on hosts that speak are heard: not before this process ran, nor while its store took nothing.
    hears_since: Timestamp,
}

impl Fleet {
    /// A fleet in the state that was stored. `seed` must be random for each start of the process;
    /// launch ids are made from it. Apply [`Event::Restarted`] first.
    #[must_use]
    pub fn restore(spec: FleetSpec, stored: Stored, seed: u64) -> Self {
        // A name that two have had is that of the one whose work goes on.
        let (over, on): (Vec<_>, Vec<_>) = stored.runners.iter().partition(|r| r.is_over());
        let names = over.into_iter().chain(on);
        let names = names.map(|r| (r.name.clone(), r.launch.clone()));
        let names = names.collect();
        let jobs: BTreeMap<_, _> = stored.jobs.into_iter().map(|job| (job.id(), job)).collect();
        let runners = stored
            .runners
            .into_iter()
            .map(|runner| (runner.launch.clone(), runner))
            .collect();
        Self {
            current: Current::of(&jobs, &runners),
            runs: Runs::of(jobs.values()),
            left_runners: BTreeMap::new(),
            unlisted: BTreeMap::new(),
            images_told: BTreeSet::new(),
            changed_before: BTreeSet::new(),
            unread: stored.unread,
            hears_since: Timestamp::MIN,
            spec,
            ids: LaunchIds::new(seed),
            jobs,
            runners,
            pools: stored.pools,
            names,
            suspects: BTreeMap::new(),
        }
    }

    /// Takes one event at one time, and says what follows. An event that doesn't fit the state
    /// changes nothing; [`Changes::refused`] says why.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Changes {
        self.apply_all([event], now)
    }

    /// Takes several events that came together, one after the other, and launches what lacks after the
    /// last of them: to look at all demand and supply costs more than to take an event.
    pub fn apply_all(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Timestamp,
    ) -> Changes {
        let mut all = Changes::default();
        let mut may_lack = false;
        for event in events {
            let mut turn = Turn::new(now);
            may_lack |= self.take_in(event, &mut turn);
            self.changed_before.extend(&turn.changes.jobs);
            all.append(turn.finish());
        }
        self.changed_before.clear();
        if may_lack {
            let mut turn = Turn::new(now);
            self.launch_what_lacks(&mut turn);
            all.append(turn.finish());
        }
        all
    }

    /// Takes one event; true if it may have changed demand or supply, which stay what they are while no
    /// record changes.
    fn take_in(&mut self, event: Event, turn: &mut Turn) -> bool {
        let by_time = matches!(event, Event::Tick | Event::Restarted);
        let unlisted = self.unlisted.len();
        self.dispatch(event, turn);
        self.judge(turn);
        self.note_current(turn);
        debug_assert!(
            !by_time || self.current == Current::of(&self.jobs, &self.runners),
            "all current jobs and runners are known as such"
        );
        // An account that was listed for the first time may launch what waited for that.
        by_time || turn.has_changed() || self.unlisted.len() < unlisted
    }

    fn dispatch(&mut self, event: Event, turn: &mut Turn) {
        match event {
            Event::Job(report) => self.job_reported(*report, Source::Webhook, turn),
            Event::JobFound(report) => self.job_reported(*report, Source::Look, turn),
            Event::JobMissing { job } => self.job_missing(job, turn),
            Event::RunnersListed { scope, listed } => self.runners_listed(&scope, listed, turn),
            Event::RunnerMissing { launch, name } => self.runner_missing(&launch, &name, turn),
            Event::RunCompleted { run, seen } => self.run_completed(&run, &seen, turn),
            Event::RunLeft { run, reason } => self.run_left(&run, &reason, turn),
            Event::RerunAnswered { run, answer } => self.rerun_answered(&run, answer, turn),
            Event::Launched {
                launch,
                instance,
                offering,
            } => self.launched(&launch, &instance, offering, turn),
            Event::LaunchFailed {
                launch,
                failure,
                detail,
            } => {
                self.launch_failed(&launch, failure, &detail, turn);
            }
            Event::Minted { launch, name, id } => self.minted(&launch, &name, id, turn),
            Event::MintFailed {
                launch,
                name,
                failure,
                detail,
            } => {
                self.mint_failed(&launch, &name, failure, &detail, turn);
            }
            Event::ListingFailed { account, reason } => self.listing_failed(&account, reason),
            Event::HeldUp { launch, reason } => self.held_up(&launch, reason, turn),
            Event::AssignmentLost { launch, name } => self.assignment_lost(&launch, &name, turn),
            Event::Deregistered {
                launch,
                name,
                answer,
            } => {
                self.deregistered(&launch, &name, answer, turn);
            }
            Event::Terminated { launch, gone } => self.terminated(&launch, gone, turn),
            Event::InstanceGone { launch, instance } => {
                self.instance_reported_gone(&launch, &instance, turn);
            }
            Event::InstancesListed {
                account,
                absence,
                alive,
                gone,
            } => {
                self.listed_as_gone(&account, &gone, turn);
                self.instances_listed(&account, absence, &alive, turn);
            }
            Event::ImagesKnown { pool, own, canary } => {
                self.images_known(&pool, own, canary, turn);
            }
            Event::Enrolled { launch, instance } => self.enrolled(&launch, &instance, turn),
            Event::Distrusted { launch, reason } => self.distrusted(&launch, &reason, turn),
            Event::AgentConnected {
                launch,
                phase,
                assignment,
                heard_at,
            } => {
                self.heard(&launch, heard_at, turn);
                self.agent_connected(&launch, phase, assignment.as_ref(), turn);
            }
            Event::AgentLost { launch, heard_at } => self.agent_lost(&launch, heard_at, turn),
            Event::Said {
                launch,
                sequence,
                heard_at,
                event,
            } => self.said(&launch, sequence, heard_at, *event, turn),
            Event::CountsAnew { launch } => self.counts_anew(&launch, turn),
            Event::AssignmentAccepted { launch, name } => {
                self.assignment_accepted(&launch, &name, turn);
            }
            Event::PhaseChanged {
                launch,
                phase,
                job_name,
            } => {
                self.phase_changed(&launch, phase, job_name, turn);
            }
            Event::Finished {
                launch,
                outcome,
                reason,
            } => {
                self.finished(&launch, outcome, &reason, turn);
            }
            Event::Interrupted {
                launch,
                kind,
                deadline,
                detail,
            } => {
                self.interrupted(&launch, kind, deadline, &detail, turn);
            }
            Event::Troubled {
                launch,
                kind,
                detail,
            } => {
                self.troubled(&launch, kind, detail, turn);
            }
            Event::DrainReported { launch, idle } => self.drain_reported(&launch, idle, turn),
            Event::OperatorDrain { launch, reason } => {
                self.drain(&launch, reason, None, turn);
            }
            Event::OperatorTerminate { launch, reason } => self.end(&launch, None, reason, turn),
            Event::OperatorPause { pool, paused } => self.pause(&pool, paused, turn),
            Event::Restarted => self.restarted(turn),
            Event::Resumed => self.hears_since = turn.now,
            Event::Tick => self.tick(turn),
        }
    }

    /// How long [`Event::Tick`] may wait, if nothing happens before.
    #[must_use]
    pub fn tick_within(&self) -> Duration {
        self.pulse()
    }

    /// The pools, in declared order.
    #[must_use]
    pub fn pools(&self) -> &[PoolSpec] {
        &self.spec.pools
    }

    /// The definition of a pool.
    #[must_use]
    pub fn pool(&self, name: &PoolName) -> Option<&PoolSpec> {
        self.spec.pools.iter().find(|pool| pool.name == *name)
    }

    /// The state of a pool.
    #[must_use]
    pub fn pool_state(&self, pool: &PoolName) -> PoolState {
        self.pools.get(pool).cloned().unwrap_or_default()
    }

    /// The figures of a pool.
    #[must_use]
    pub fn figures(&self, pool: &PoolName, now: Timestamp) -> PoolFigures {
        self.pool(pool)
            .map(|spec| self.count(spec, now))
            .unwrap_or_default()
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
        if let Some(launch) = self.names.get(&RunnerName::new(text)) {
            return self.runners.get(launch);
        }
        self.runners.get(&LaunchId::new(text)).or_else(|| {
            self.runners
                .values()
                .find(|runner| runner.instance_id().is_some_and(|id| id.as_str() == text))
        })
    }

    /// The runner of this instance of this account. Ids of instances mean nothing across accounts.
    #[must_use]
    pub fn runner_of(&self, account: &AccountName, instance: &InstanceId) -> Option<&Runner> {
        if let Some(launch) = self.current.launch_of(account, instance) {
            return self.runners.get(launch);
        }
        // Its work may be over, and its instance gone.
        self.runners
            .values()
            .find(|runner| runner.account == *account && runner.instance_id() == Some(instance))
    }

    /// Why a job waits, or what became of it.
    #[must_use]
    pub fn explain(&self, job: JobId, now: Timestamp) -> Option<Explanation> {
        self.jobs
            .get(&job)
            .map(|job| crate::explain::explain(self, job, now))
    }
}
