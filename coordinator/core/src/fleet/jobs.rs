//! News of jobs.

use super::Fleet;
use super::turn::Turn;
use crate::event::{JobReport, JobStatus};
use crate::ids::{JobId, LaunchId, RunnerName};
use crate::job::{Decision, Job};
use crate::matching;
use crate::runner::{Registration, Work};

impl Fleet {
    pub(super) fn job_reported(&mut self, report: JobReport, turn: &mut Turn) {
        let id = report.id;
        let before = self.jobs.get(&id).map(Job::status);
        if let Some(job) = self.jobs.get_mut(&id) {
            if !job.update(&report, turn.now) {
                turn.refuse(format!("job {id}: {:?} is no news", report.status).to_lowercase());
                return;
            }
        } else {
            let decision = matching::decide(&self.spec.pools, &report);
            self.jobs.insert(id, Job::new(report, decision, turn.now));
        }
        turn.changes.jobs.insert(id);
        self.attribute(id, turn);
        if let Some(job) = self.jobs.get(&id)
            && before != Some(job.status())
        {
            turn.changes.moved_jobs.push((id, job.status()));
            tell_status(job, turn);
            self.let_go(id, turn);
        }
    }

    /// A job has ended whose runner's work was over before: GitHub kept the registration for the job,
    /// and does so no longer.
    fn let_go(&mut self, id: JobId, turn: &mut Turn) {
        let job = self.jobs.get(&id);
        let Some(launch) = job
            .filter(|job| job.status() == JobStatus::Completed)
            .and_then(|job| job.taken_by.clone())
        else {
            return;
        };
        let kept = self.runners.get(&launch).is_some_and(|runner| {
            runner.is_over() && matches!(runner.registration, Registration::Deleting { .. })
        });
        if kept {
            self.deregister(&launch, turn);
        }
    }

    /// Notes which of our runners has a job, once GitHub says so.
    fn attribute(&mut self, id: JobId, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(launch) = job
            .report
            .runner_name
            .as_deref()
            .and_then(|name| self.names.get(&RunnerName::new(name)))
            .cloned()
        else {
            return;
        };
        let status = job.status();
        job.taken_by = Some(launch.clone());
        let Some(runner) = self.runners.get_mut(&launch) else {
            return;
        };
        if runner.job != Some(id) {
            if let Some(other) = runner.job {
                // One job per instance is GitHub's promise for ephemeral runners; its break is a finding.
                turn.refuse(format!(
                    "{launch} has job {other}, and GitHub says it took {id} too"
                ));
                return;
            }
            runner.job = Some(id);
            turn.touch(runner);
        }
        let waits = matches!(runner.work, Work::Assigning | Work::Starting | Work::Idle);
        if status == JobStatus::InProgress && waits {
            self.took_a_job(&launch, turn);
        }
    }

    /// The runner of a launch has a job, by whatever source.
    pub(super) fn took_a_job(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let step = runner.set_work(Work::Busy, turn.now);
        if turn.stepped(runner, step) {
            let detail = runner.job_name.clone().unwrap_or_default();
            turn.tell(runner, "busy", detail);
            let (pool, shape) = (runner.pool.clone(), runner.shape.clone());
            self.worked(&pool, &shape, turn);
        }
    }

    /// Offers the jobs that wait to the pools anew, as the pools may have changed.
    pub(super) fn redecide(&mut self, turn: &mut Turn) {
        for job in self
            .jobs
            .values_mut()
            .filter(|job| job.status() <= JobStatus::Queued)
        {
            let decision = matching::decide(&self.spec.pools, &job.report);
            if decision != job.decision {
                job.decision = decision;
                let detail = served_by(job);
                turn.tell_job(job, "decided anew", detail);
            }
        }
    }
}

fn tell_status(job: &Job, turn: &mut Turn) {
    match job.status() {
        JobStatus::Waiting => turn.tell_job(job, "waiting", "GitHub holds it back"),
        JobStatus::Queued => {
            let detail = served_by(job);
            turn.tell_job(job, "queued", detail);
        }
        JobStatus::InProgress => {
            let runner = job
                .report
                .runner_name
                .as_deref()
                .unwrap_or("an unnamed runner");
            turn.tell_job(job, "started", format!("on {runner}"));
        }
        JobStatus::Completed => {
            let conclusion = job.report.conclusion.as_deref().unwrap_or("no conclusion");
            turn.tell_job(job, "completed", conclusion);
        }
    }
}

fn served_by(job: &Job) -> String {
    match &job.decision {
        Decision::Served { pool, shape } if shape.labels.is_empty() => format!("pool {pool}"),
        Decision::Served { pool, shape } => format!("pool {pool}, {shape}"),
        Decision::Refused(refusals) if refusals.is_empty() => "there is no pool".to_owned(),
        Decision::Refused(refusals) => {
            let reasons: Vec<_> = refusals
                .iter()
                .map(|refusal| format!("{}: {}", refusal.pool, refusal.reason))
                .collect();
            format!("no pool takes it: {}", reasons.join("; "))
        }
    }
}
