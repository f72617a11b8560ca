//! GitHub: runs, jobs, runners, and the webhooks that tell of them.

mod answers;
mod hook;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{InstanceId, JobStatus};

use super::host::News;
use super::world::{State, World};

pub(super) use answers::way;
pub(super) use hook::{Attempt, redeliver};

pub(super) const OWNER: &str = "octo-org";
/// The repositories.
pub(super) const REPOSITORIES: [&str; 3] = ["app", "site", "tool"];
/// GitHub gives a job up so long after its runner was heard last: ten to fifteen minutes here.
const GIVEN_UP: (u64, u64) = (600_000, 900_000);

/// What GitHub knows.
#[derive(Debug, Default)]
pub(super) struct Github {
    ids: i64,
    pub(super) runs: BTreeMap<i64, Run>,
    /// Runs that have not completed.
    open: BTreeSet<i64>,
    pub(super) jobs: BTreeMap<i64, Job>,
    queued: BTreeSet<i64>,
    pub(super) runners: BTreeMap<i64, Runner>,
    pub(super) attempts: Vec<Attempt>,
    bodies: BTreeMap<String, String>,
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) repository: &'static str,
    pub(super) attempt: u32,
    /// Those of the newest attempt.
    pub(super) jobs: Vec<i64>,
}

/// One job.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: i64,
    pub(super) run: i64,
    attempt: u32,
    pub(super) name: String,
    pub(super) label: &'static str,
    pub(super) status: JobStatus,
    pub(super) conclusion: Option<&'static str>,
    pub(super) runner: Option<String>,
    created: Timestamp,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
    /// How long its steps take.
    pub(super) lasts: Duration,
    /// How they end.
    pub(super) ends: &'static str,
    /// A webhook told of it, or was at least tried to.
    pub(super) told: bool,
    /// Its host went in the middle of it.
    pub(super) interrupted: bool,
    /// It ended when its agent would stop it or did: who does not hear the agent can't know what it was.
    pub(super) in_doubt: bool,
}

/// One registration.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    pub(super) name: String,
    labels: Vec<String>,
    /// The host that holds its session.
    pub(super) host: Option<InstanceId>,
    pub(super) job: Option<i64>,
}

impl Github {
    fn id(&mut self) -> i64 {
        self.ids += 1;
        self.ids
    }

    /// Whether all that was asked for has ended.
    pub(super) fn all_ended(&self) -> bool {
        self.open.is_empty()
    }

    fn completed(&self, run: &Run) -> bool {
        let jobs = run.jobs.iter().filter_map(|id| self.jobs.get(id));
        jobs.into_iter()
            .all(|job| job.status == JobStatus::Completed)
    }

    fn conclusion(&self, run: &Run) -> Option<&'static str> {
        let jobs = || run.jobs.iter().filter_map(|id| self.jobs.get(id));
        if !self.completed(run) {
            return None;
        }
        let all = jobs().all(|job| job.conclusion == Some("success"));
        Some(if all { "success" } else { "failure" })
    }
}

/// Somebody pushes: a run with some jobs is made.
pub(super) fn push(world: &World, jobs: usize, label: &'static str) {
    let now = world.now();
    let mut state = world.lock();
    let run = state.github.id();
    let repository = REPOSITORIES[state.below(REPOSITORIES.len())];
    let made = Run {
        repository,
        attempt: 1,
        jobs: Vec::new(),
    };
    state.github.runs.insert(run, made);
    state.github.open.insert(run);
    let mut ids = Vec::new();
    for number in 0..jobs {
        let fails = state.plan.job_fails;
        let ends = if state.chance(fails) {
            "failure"
        } else {
            "success"
        };
        let lasts = if state.chance(0.05) {
            state.between(120_000, 900_000)
        } else {
            state.between(2_000, 60_000)
        };
        ids.push(make_job(
            &mut state,
            run,
            1,
            format!("job-{number}"),
            label,
            lasts,
            ends,
            now,
        ));
    }
    drop(state);
    for id in ids {
        hook::tell(world, id);
    }
}

#[expect(clippy::too_many_arguments, reason = "what a job is made of")]
fn make_job(
    state: &mut State,
    run: i64,
    attempt: u32,
    name: String,
    label: &'static str,
    lasts: Duration,
    ends: &'static str,
    now: Timestamp,
) -> i64 {
    let id = state.github.id();
    let job = Job {
        id,
        run,
        attempt,
        name,
        label,
        status: JobStatus::Queued,
        conclusion: None,
        runner: None,
        created: now,
        started: None,
        completed: None,
        lasts,
        ends,
        told: false,
        interrupted: false,
        in_doubt: false,
    };
    state.github.jobs.insert(id, job);
    state.github.queued.insert(id);
    if let Some(run) = state.github.runs.get_mut(&run) {
        run.jobs.push(id);
    }
    id
}

/// A host opens the session of its registration; false if there is none any more.
pub(super) fn comes_online(world: &World, runner: i64, host: &InstanceId) -> bool {
    let mut state = world.lock();
    let Some(known) = state.github.runners.get_mut(&runner) else {
        return false;
    };
    let twice = known.host.as_ref().is_some_and(|other| other != host);
    known.host = Some(host.clone());
    let name = known.name.clone();
    drop(state);
    if twice {
        world.violated(&format!("invariant 8: two hosts are runner {name}"));
    }
    hand_out(world);
    true
}

/// Gives queued jobs to runners that wait.
pub(super) fn hand_out(world: &World) {
    let now = world.now();
    let mut given = Vec::new();
    {
        let mut state = world.lock();
        let queued: Vec<i64> = state.github.queued.iter().copied().collect();
        for id in queued {
            let label = state.github.jobs[&id].label;
            let idle = state.github.runners.iter().find(|(_, runner)| {
                runner.host.is_some()
                    && runner.job.is_none()
                    && runner.labels.iter().any(|each| each == label)
            });
            let Some((&runner, _)) = idle else { continue };
            let taker = state.github.runners.get_mut(&runner);
            let (name, host) = taker.map_or_else(Default::default, |taker| {
                taker.job = Some(id);
                (taker.name.clone(), taker.host.clone())
            });
            state.github.queued.remove(&id);
            if let Some(job) = state.github.jobs.get_mut(&id) {
                job.status = JobStatus::InProgress;
                job.started = Some(now);
                job.runner = Some(name);
            }
            if let Some(host) = host {
                given.push((id, host));
            }
        }
    }
    for (id, host) in given {
        world.tell(format!("github gives job {id} to {}", host.as_str()));
        let wrong = super::judge::gets_a_job(&world.lock(), &host);
        if let Some(what) = wrong {
            world.violated(&what);
        }
        super::host::tell(world, &host, News::Job(id));
        hook::tell(world, id);
    }
}

/// A job has ended, by its runner's word or without it. Its registration goes with it.
pub(super) fn complete(world: &World, id: i64, conclusion: &'static str) {
    let now = world.now();
    {
        let mut state = world.lock();
        let state = &mut *state;
        let Some(job) = state.github.jobs.get_mut(&id) else {
            return;
        };
        if job.status == JobStatus::Completed {
            return;
        }
        job.status = JobStatus::Completed;
        job.conclusion = Some(conclusion);
        job.completed = Some(now);
        let run = job.run;
        state.github.queued.remove(&id);
        state
            .github
            .runners
            .retain(|_, runner| runner.job != Some(id));
        if let Some(known) = state.github.runs.get(&run)
            && state.github.completed(known)
        {
            state.github.open.remove(&run);
        }
    }
    world.tell(format!("github job {id} {conclusion}"));
    hook::tell(world, id);
    world.news.notify_waiters();
}

/// A host is gone with its runner: an idle one goes offline, a job is given up after a while.
pub(super) fn lost_host(world: &World, host: &InstanceId) {
    let mut lost = None;
    {
        let mut state = world.lock();
        let state = &mut *state;
        for runner in state.github.runners.values_mut() {
            if runner.host.as_ref() == Some(host) {
                runner.host = None;
                lost = runner.job;
            }
        }
        let job = lost.and_then(|id| state.github.jobs.get_mut(&id));
        if let Some(job) = job {
            job.interrupted = true;
        }
    }
    if let Some(id) = lost {
        let world = world.clone();
        tokio::spawn(async move {
            world.rest(GIVEN_UP.0, GIVEN_UP.1).await;
            complete(&world, id, "failure");
        });
    }
}

/// Somebody cancels a job, whatever it does.
pub(super) fn cancel(world: &World, id: i64) {
    let host = {
        let state = world.lock();
        let Some(job) = state.github.jobs.get(&id) else {
            return;
        };
        if job.status == JobStatus::Completed {
            return;
        }
        let mut runners = state.github.runners.values();
        let runner = runners.find(|runner| runner.job == Some(id));
        runner.and_then(|runner| runner.host.clone())
    };
    match host {
        Some(host) => super::host::tell(world, &host, News::Cancelled(id)),
        None => complete(world, id, "cancelled"),
    }
}

/// Runs the jobs of a run again that did not succeed, or one of them; false while the run is open.
fn run_again(world: &World, run: i64, only: Option<i64>) -> bool {
    let now = world.now();
    let ids: Vec<i64> = {
        let mut state = world.lock();
        let Some(known) = state.github.runs.get(&run).cloned() else {
            return false;
        };
        if !state.github.completed(&known) {
            return false;
        }
        let again: Vec<Job> = known
            .jobs
            .iter()
            .filter_map(|id| state.github.jobs.get(id))
            .filter(|job| only.map_or(job.conclusion != Some("success"), |only| only == job.id))
            .cloned()
            .collect();
        let attempt = known.attempt + 1;
        if let Some(run) = state.github.runs.get_mut(&run) {
            run.attempt = attempt;
            run.jobs.retain(|id| again.iter().all(|job| job.id != *id));
        }
        state.github.open.insert(run);
        for job in &again {
            state.judge.run_again(run, job);
        }
        again
            .into_iter()
            .map(|job| {
                let Job {
                    name,
                    label,
                    lasts,
                    ends,
                    ..
                } = job;
                make_job(&mut state, run, attempt, name, label, lasts, ends, now)
            })
            .collect()
    };
    world.tell(format!("github runs {run} again: {ids:?}"));
    for id in ids {
        hook::tell(world, id);
    }
    hand_out(world);
    true
}
