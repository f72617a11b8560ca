//! What must be true, at each step and in the end. The rest of it stands where it is checked: with the cloud,
//! GitHub and the hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{InstanceId, JobStatus, Work};

use super::github::Job;
use super::host::Host;
use super::run::{LIFETIME, POOLS, RERUNS};
use super::world::{State, World};

/// The coordinator's clock is wrong by so much at most.
const STRAYS: Duration = Duration::from_secs(60);
/// Of so many jobs that were cut short in one life GitHub may never have sent a word, not even one that failed,
/// and the coordinator may have been killed each time before it came to look at their runs.
const UNHEARD: usize = 1;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Judge {
    violations: Vec<String>,
    pub(super) hosts: BTreeMap<InstanceId, Host>,
    /// Deliveries that were answered well.
    thanked: BTreeSet<String>,
    /// What each instance was assigned.
    assigned: BTreeMap<InstanceId, Vec<String>>,
    configs: BTreeMap<String, InstanceId>,
    /// How often a job of a run was run again.
    reruns: BTreeMap<(i64, String), u32>,
    pub(super) interrupted: u64,
}

impl Judge {
    pub(super) fn violated(&mut self, what: &str) {
        self.violations.push(what.to_owned());
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn thanked(&mut self, guid: &str) {
        self.thanked.insert(guid.to_owned());
    }

    pub(super) fn assigned(&mut self, instance: &InstanceId, config: &str) {
        let all = self.assigned.entry(instance.clone()).or_default();
        all.push(config.to_owned());
        if all.len() > 1 {
            let what = format!("invariant 1: {} was assigned {all:?}", instance.as_str());
            self.violated(&what);
        }
        let first = self.configs.insert(config.to_owned(), instance.clone());
        if let Some(first) = first {
            let what = format!(
                "invariant 8: {config} went to {} and to {}",
                first.as_str(),
                instance.as_str()
            );
            self.violated(&what);
        }
    }

    pub(super) fn run_again(&mut self, run: i64, job: &Job) {
        let count = self.reruns.entry((run, job.name.clone())).or_default();
        *count += 1;
        if *count > RERUNS {
            let what = format!("{} of run {run} was run again {count} times", job.name);
            self.violated(&what);
        }
        // Failed jobs run again together, and those with them that were cancelled, as a matrix is that fails fast.
        if job.conclusion == Some("failure") && !job.interrupted && !job.in_doubt {
            let what = format!(
                "{} of run {run} was run again, and was not cut short by its host",
                job.name
            );
            self.violated(&what);
        }
        self.interrupted += 1;
    }
}

/// A host is given a job by GitHub.
pub(super) fn gets_a_job(state: &State, instance: &InstanceId) -> Option<String> {
    let within = state.plan.drains_within?;
    let host = state.judge.hosts.get(instance)?;
    let heard = host.noticed_at?.max(host.connected_since?);
    (heard.elapsed() > within).then(|| {
        let (who, after) = (instance.as_str(), heard.elapsed());
        format!("invariant 9: {who} gets a job {after:?} after its notice")
    })
}

/// The coordinator ends an instance; nobody may be harmed by it whose host is as it should be.
pub(super) fn ends(state: &State, instance: &InstanceId, now: Timestamp) -> Option<String> {
    let mut runners = state.github.runners.values();
    let runner = runners.find(|runner| runner.host.as_ref() == Some(instance))?;
    let job = runner.job?;
    let host = state.judge.hosts.get(instance)?;
    let too_old = state.cloud.all.get(instance)?.age(now) + STRAYS >= LIFETIME;
    let there = host.connected_since.is_some() || state.plan.outages_only;
    let fair = there && !host.ends_soon && !host.robbed && !too_old;
    fair.then(|| {
        let who = instance.as_str();
        format!("invariant 10: {who} runs job {job}, is well, and is ended")
    })
}

/// Whether nothing is left to be done.
pub(super) fn is_settled(state: &State) -> bool {
    state.github.all_ended() && left(state).is_none()
}

/// What is left that should not be, when the world has been calm for long.
fn left(state: &State) -> Option<String> {
    let tables = &state.disk.tables;
    for job in tables.jobs.values() {
        if job.status() != JobStatus::Completed {
            return Some(format!(
                "invariant 10: job {} is still {:?}",
                job.id(),
                job.status()
            ));
        }
        let rerun = job.cut_short.as_ref().and_then(|cut| cut.rerun.as_ref());
        if rerun.is_some_and(muster_core::Rerun::is_pending) {
            return Some(format!("job {} still waits for its repetition", job.id()));
        }
    }
    if let Some(key) = state.disk.outbox().next() {
        return Some(format!("invariant 10: {key} is still in the outbox"));
    }
    for (id, instance) in state.cloud.alive() {
        let Some(runner) = tables.runners.get(&instance.launch) else {
            return Some(format!("invariant 5: {} is not in the ledger", id.as_str()));
        };
        if runner.work != Work::Idle || runner.instance_id() != Some(id) {
            return Some(format!(
                "invariant 5: {} lives, and its runner is {:?} on {:?}",
                id.as_str(),
                runner.work,
                runner.instance
            ));
        }
    }
    for runner in tables.runners.values() {
        let alive = runner.instance_id().is_some_and(|id| {
            let instance = state.cloud.all.get(id);
            instance.is_some_and(|instance| instance.ended.is_none())
        });
        if !runner.instance_is_gone() && !alive {
            return Some(format!(
                "invariant 10: {} waits for an instance",
                runner.launch
            ));
        }
    }
    for (id, registration) in &state.github.runners {
        let Some(host) = &registration.host else {
            return Some(format!("registration {id} {} was left", registration.name));
        };
        if !state.judge.hosts.contains_key(host) {
            return Some(format!("registration {id} has lost its host"));
        }
    }
    let idle = state.cloud.alive().count();
    let wanted: u32 = POOLS.iter().map(|(_, idle, _)| idle).sum();
    if idle != wanted as usize {
        return Some(format!("{idle} instances wait, and should be {wanted}"));
    }
    None
}

/// What must be true in the end.
pub(super) fn judge_end(world: &World) {
    let mut wrong = Vec::new();
    {
        let state = world.lock();
        if !state.github.all_ended() {
            let jobs = state.github.jobs.values();
            let open: Vec<i64> = jobs
                .filter(|job| job.status != JobStatus::Completed)
                .map(|job| job.id)
                .collect();
            wrong.push(format!("invariant 4: jobs {open:?} were not served"));
        }
        wrong.extend(left(&state));
        let tables = &state.disk.tables;
        for guid in &state.judge.thanked {
            if !tables.deliveries.contains(guid) {
                wrong.push(format!("invariant 3: {guid} was answered well and is lost"));
            }
        }
        for (id, job) in &tables.jobs {
            let Some(truth) = state.github.jobs.get(&id.0) else {
                wrong.push(format!("job {id} was made up"));
                continue;
            };
            // That its run has gone on is all that is known of some, and that they have ended follows from it.
            let closed = job.closed.is_some() && truth.status == JobStatus::Completed;
            if !closed && job.report.conclusion.as_deref() != truth.conclusion {
                wrong.push(format!(
                    "invariant 11: job {id} ended as {:?}, and is taken for {:?}",
                    truth.conclusion, job.report.conclusion
                ));
            }
        }
        wrong.extend(not_run_again(&state));
    }
    for what in wrong {
        world.violated(&what);
    }
}

/// Jobs that were cut short by their hosts, and that nothing was done about.
fn not_run_again(state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut unheard = Vec::new();
    let jobs = state.github.runs.values().flat_map(|run| &run.jobs);
    for job in jobs.filter_map(|id| state.github.jobs.get(id)) {
        let failed = job.conclusion == Some("failure");
        let again = state.judge.reruns.get(&(job.run, job.name.clone()));
        if !job.interrupted || job.in_doubt || !failed || again.is_some_and(|it| *it >= RERUNS) {
            continue;
        }
        let id = job.id;
        let decided = |known: &muster_core::Job| {
            let cut = known.cut_short.as_ref();
            // What was run again by somebody else is no matter of ours any more.
            cut.is_some_and(|cut| {
                known.closed.is_some() || cut.rerun.as_ref().is_some_and(|it| !it.is_pending())
            })
        };
        match state.disk.tables.jobs.get(&muster_core::JobId(id)) {
            Some(known) if decided(known) => {}
            None if !job.told => unheard.push(id),
            _ => wrong.push(format!(
                "job {id} was cut short by its host, and nothing was done about it"
            )),
        }
    }
    if unheard.len() > UNHEARD {
        wrong.push(format!(
            "jobs {unheard:?} were cut short by their hosts, and nobody had looked at them"
        ));
    }
    wrong
}
