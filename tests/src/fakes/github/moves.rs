//! How jobs and registrations move: queued, assigned, acquired, ended, run again.

use jiff::Timestamp;

use super::Options;
use super::runner_endpoint::Message;
use super::spec::{Conclusion, JobId, JobSpec, Status};
use super::state::{Host, Job, Run, State, Task};

/// Why a job can't be run again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RerunRefused {
    /// No such job or run.
    Unknown,
    /// The run has not completed yet.
    StillRunning,
    /// The run is older than 30 days.
    TooOld,
    /// The run has been run again 50 times.
    TooOften,
}

/// <https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs>
const RERUNS_AT_MOST: u64 = 50;
const RERUN_WITHIN: std::time::Duration = std::time::Duration::from_hours(30 * 24);

impl State {
    /// Starts a run; its jobs without needs are queued at once.
    pub(super) fn queue_run(&mut self, specs: Vec<JobSpec>, now: Timestamp) -> Vec<JobId> {
        let Some(first) = specs.first() else {
            return Vec::new();
        };
        self.ensure_repository(&first.repository, first.public);
        if let Some(repository) = self.repositories.get_mut(&first.repository.to_lowercase()) {
            repository.pushed_at = now;
        }
        let id = self.fresh_id();
        let number = self
            .runs
            .values()
            .filter(|run| run.repository == first.repository)
            .count()
            + 1;
        self.runs.insert(
            id,
            Run {
                id,
                number: number as u64,
                attempt: 1,
                repository: first.repository.clone(),
                workflow: first.workflow.clone(),
                created_at: now,
                jobs: Vec::new(),
                pending: specs,
            },
        );
        self.release_pending(id, now)
    }

    /// Creates those jobs of a run whose needs have been decided.
    fn release_pending(&mut self, run_id: u64, now: Timestamp) -> Vec<JobId> {
        let mut created = Vec::new();
        loop {
            let Some(run) = self.runs.get(&run_id) else {
                return created;
            };
            let attempt = run.attempt;
            let done = self.jobs_of_run(run_id, None);
            let outcome = |name: &str| {
                done.iter()
                    .find(|job| job.spec.name == name)
                    .and_then(|job| job.conclusion)
            };
            let ready = run.pending.iter().position(|spec| {
                spec.needs.iter().all(|name| {
                    outcome(name).is_some() && run.pending.iter().all(|other| other.name != *name)
                })
            });
            let Some(index) = ready else { return created };
            let met = run.pending[index]
                .needs
                .iter()
                .all(|name| outcome(name) == Some(Conclusion::Success));
            let Some(run) = self.runs.get_mut(&run_id) else {
                return created;
            };
            let spec = run.pending.remove(index);
            created.push(self.create_job(run_id, attempt, spec, met, now));
        }
    }

    fn create_job(
        &mut self,
        run_id: u64,
        run_attempt: u64,
        spec: JobSpec,
        needs_met: bool,
        now: Timestamp,
    ) -> JobId {
        let id = self.fresh_id();
        let status = match (needs_met, spec.needs_approval) {
            (false, _) => Status::Completed,
            (true, true) => Status::Waiting,
            (true, false) => Status::Queued,
        };
        let skipped = (!needs_met).then_some(Conclusion::Skipped);
        self.jobs.insert(
            id,
            Job {
                id,
                run_id,
                run_attempt,
                spec,
                status,
                conclusion: skipped,
                annotation: None,
                created_at: now,
                started_at: None,
                completed_at: skipped.map(|_| now),
                runner: None,
                locked_until: None,
                cancel_deadline: None,
            },
        );
        if needs_met {
            self.open.insert(id);
        }
        if let Some(run) = self.runs.get_mut(&run_id) {
            run.jobs.push(id);
        }
        self.announce(id);
        id
    }

    /// An environment's reviewer approves: a waiting job is queued.
    pub(super) fn approve(&mut self, id: JobId) -> bool {
        let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.status == Status::Waiting)
        else {
            return false;
        };
        job.status = Status::Queued;
        self.announce(id);
        true
    }

    /// Someone cancels: at once if no runner has it, else the runner is told.
    pub(super) fn cancel(&mut self, id: JobId, options: &Options, now: Timestamp) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        match job.status {
            Status::Completed => false,
            Status::Waiting | Status::Queued => {
                self.end_job(id, Conclusion::Cancelled, None, now);
                true
            }
            Status::InProgress => {
                let timeout = options.cancel_timeout;
                job.cancel_deadline = Some(after(now, timeout));
                let host = job.runner.as_ref().map(|host| host.id);
                if let Some(session) = host
                    .and_then(|id| self.runners.get_mut(&id))
                    .and_then(|runner| runner.session.as_mut())
                {
                    session.inbox.push_back(Message::Cancel {
                        request_id: id,
                        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                    });
                }
                true
            }
        }
    }

    /// A runner takes the job it was told of. `false`: it is not (or no longer) its.
    pub(super) fn acquire(
        &mut self,
        runner_id: u64,
        job_id: JobId,
        options: &Options,
        now: Timestamp,
    ) -> bool {
        let Some(runner) = self.runners.get_mut(&runner_id) else {
            return false;
        };
        if !matches!(runner.task, Task::Assigned { job, .. } if job == job_id) {
            return false;
        }
        runner.task = Task::Running { job: job_id };
        let (scope, group_id) = (runner.scope.clone(), runner.group_id);
        let name = runner.name.clone();
        let group_name = self
            .group(&scope, group_id)
            .map_or("Default", |group| &group.name)
            .to_owned();
        let Some(job) = self
            .jobs
            .get_mut(&job_id)
            .filter(|job| job.status == Status::Queued)
        else {
            return false;
        };
        job.status = Status::InProgress;
        job.started_at = Some(now);
        job.locked_until = Some(after(now, options.job_lock));
        job.runner = Some(Host {
            id: runner_id,
            name,
            group_id,
            group_name,
        });
        self.announce(job_id);
        true
    }

    /// Ends a job; its runner's registration, if one was used, is gone with it.
    pub(super) fn end_job(
        &mut self,
        id: JobId,
        conclusion: Conclusion,
        annotation: Option<&str>,
        now: Timestamp,
    ) {
        let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.status != Status::Completed)
        else {
            return;
        };
        job.status = Status::Completed;
        job.conclusion = Some(conclusion);
        job.completed_at = Some(now);
        job.locked_until = None;
        job.cancel_deadline = None;
        job.annotation = annotation.map(str::to_owned);
        let run_id = job.run_id;
        let host = job.runner.as_ref().map(|host| host.id);
        self.open.remove(&id);
        self.announce(id);
        if let Some(host) = host {
            self.runners.remove(&host);
        }
        for runner in self.runners.values_mut() {
            if matches!(runner.task, Task::Assigned { job, .. } if job == id) {
                runner.task = Task::Spent;
            }
        }
        self.release_pending(run_id, now);
    }

    /// Runs a job again with those that need it, as a new attempt with new ids.
    pub(super) fn rerun_job(&mut self, id: JobId, now: Timestamp) -> Result<(), RerunRefused> {
        let job = self.jobs.get(&id).ok_or(RerunRefused::Unknown)?;
        let (run_id, name) = (job.run_id, job.spec.name.clone());
        self.rerun(run_id, now, |job| job.spec.name == name)
    }

    /// Runs again those jobs of a run that `chosen` picks, with those that need them.
    pub(super) fn rerun(
        &mut self,
        run_id: u64,
        now: Timestamp,
        chosen: impl Fn(&Job) -> bool,
    ) -> Result<(), RerunRefused> {
        let run = self.runs.get(&run_id).ok_or(RerunRefused::Unknown)?;
        let jobs = self.jobs_of_run(run_id, None);
        if run.status(&jobs) != Status::Completed {
            return Err(RerunRefused::StillRunning);
        }
        if after(run.created_at, RERUN_WITHIN) < now {
            return Err(RerunRefused::TooOld);
        }
        if run.attempt > RERUNS_AT_MOST {
            return Err(RerunRefused::TooOften);
        }
        let mut again: Vec<JobSpec> = Vec::new();
        loop {
            let picked = |name: &str| again.iter().any(|spec| spec.name == name);
            let next = jobs.iter().find(|job| {
                !picked(&job.spec.name)
                    && (chosen(job) || job.spec.needs.iter().any(|name| picked(name)))
            });
            match next {
                Some(job) => again.push(job.spec.clone()),
                None => break,
            }
        }
        if let Some(run) = self.runs.get_mut(&run_id) {
            run.attempt += 1;
            run.pending = again;
        }
        self.release_pending(run_id, now);
        Ok(())
    }

    /// When [`State::expire`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let assigned = self
            .runners
            .values()
            .filter_map(|runner| match runner.task {
                Task::Assigned { until, .. } => Some(until),
                _ => None,
            });
        let jobs = self
            .open_jobs()
            .flat_map(|job| [job.locked_until, job.cancel_deadline]);
        jobs.flatten().chain(assigned).min()
    }

    /// Does all whose time has come.
    pub(super) fn expire(&mut self, now: Timestamp) {
        for runner in self.runners.values_mut() {
            if matches!(runner.task, Task::Assigned { until, .. } if until <= now) {
                // The job is still queued and may go to another; this registration is used up.
                runner.task = Task::Spent;
            }
        }
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let ended: Vec<_> = self
            .open_jobs()
            .filter_map(|job| match () {
                () if due(job.locked_until) => Some((job.id, Conclusion::Failure, LOST)),
                () if due(job.cancel_deadline) => Some((job.id, Conclusion::Cancelled, IGNORED)),
                () => None,
            })
            .collect();
        for (id, conclusion, why) in ended {
            self.end_job(id, conclusion, Some(why), now);
        }
        self.tokens.retain(|_, token| token.expires_at > now);
    }
}

const LOST: &str = "The self-hosted runner lost communication with the server. Verify the machine \
                    is running and has a healthy network connection.";
const IGNORED: &str = "The runner did not respond to a cancelation request with 00:05:00.";

/// `now` plus `wait`, or the end of time.
pub(super) fn after(now: Timestamp, wait: std::time::Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
