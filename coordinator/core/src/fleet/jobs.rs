//! The rules of jobs. Each row is a test of that name in `tests/job_rules.rs`.
//!
//! | what comes | what follows | test |
//! | --- | --- | --- |
//! | `queued` | demand of the first pool that takes it | `a_queued_job_is_demand_once_however_often_it_is_announced` |
//! | the same again, or older news | what they add, nothing else | `the_order_of_a_jobs_news_does_not_matter` |
//! | `completed` before `queued` | the job has ended | `a_job_that_completed_before_it_was_queued_is_never_demand` |
//! | `waiting`, `requested`, `pending` | no demand before `queued` | `a_job_that_github_holds_back_is_no_demand_before_it_is_queued` |
//! | cancelled while it waits | no demand; a runner that is too many leaves when idle | `a_job_cancelled_in_the_queue_leaves_no_demand` |
//! | `in_progress` on a runner of its pool | that runner has it | `a_job_is_attributed_to_the_runner_that_github_names` |
//! | `in_progress` on a runner of another pool | the same; its own pool lacks one less | `a_job_that_another_pools_runner_took_is_attributed_to_it` |
//! | `in_progress` on a runner that is not ours | no demand, no launch | `a_job_on_a_foreign_runner_is_no_demand` |
//! | a runner has a job that nobody announced | counts against the queue for a while | `a_runner_with_an_unannounced_job_counts_against_the_queue_for_a_while` |
//! | a runner is named for a second job | refused: a finding | `a_second_job_of_one_runner_is_a_finding` |
//! | a job that no webhook told of | as by webhook, and told | `a_job_that_no_webhook_told_of_is_served_and_told` |
//! | `queued` of an unknown old job, redelivered | no launch before GitHub was asked | `old_news_of_an_unknown_job_launch_nothing_before_github_was_asked` |
//! | a newer attempt of the run | open jobs of older ones have ended | `a_newer_attempt_ends_the_open_jobs_of_older_ones` |
//! | news of an older attempt | the job has ended | `a_late_job_of_an_older_attempt_is_no_demand` |
//! | GitHub knows the job no more, twice | it has ended, until it is seen again | `a_job_that_is_missing_twice_has_ended_until_it_is_seen_again` |
//! | the repository has another name or owner | offered to the pools anew | `a_job_of_a_transferred_repository_is_offered_anew` |
//! | an idle runner, and the job waits on | told once, GitHub is asked | `a_job_that_idle_runners_wait_for_in_vain_is_told_once` |
//! | `queued` for 25 h, `in_progress` for 5 days | it has ended, until a look shows it: GitHub lets none be this old | `a_job_that_is_older_than_github_allows_has_ended` |

use std::time::Duration;

use jiff::Timestamp;

use super::Fleet;
use super::demand::elapsed;
use super::forget::REMEMBERED;
use super::turn::Turn;
use crate::changes::Difference;
use crate::event::{JobReport, JobStatus};
use crate::ids::{JobId, LaunchId, PoolName, RunnerName};
use crate::job::{Closed, Decision, Job};
use crate::matching::{self, Shape};
use crate::runner::{Registration, Work};

/// Two answers that there is no such job must be so far apart, as GitHub may lag behind its own webhooks.
const MISSING: Duration = Duration::from_secs(60);
/// GitHub cancels a job that was queued for 24 hours, and ends one that ran for 5 days on a runner of ours
/// (<https://docs.github.com/en/actions/reference/limits>). An hour more is for clocks and for its cleaning.
const LONGEST_QUEUED: Duration = Duration::from_secs(25 * 60 * 60);
const LONGEST_RUN: Duration = Duration::from_secs((5 * 24 + 1) * 60 * 60);
/// A job and an idle runner that wait for each other so long will not find each other by waiting.
const PASSED_OVER: Duration = Duration::from_secs(2 * 60);

/// How news came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// GitHub told us, now or a while ago.
    Webhook,
    /// We looked: this is how it is.
    Look,
}

impl Fleet {
    pub(super) fn job_reported(&mut self, report: JobReport, source: Source, turn: &mut Turn) {
        let id = report.id;
        let before = self.jobs.get(&id).map(Job::status);
        if let Some(job) = self.jobs.get_mut(&id) {
            let word_at_last = job.closed.is_some();
            let moved = job.report.repository != report.repository;
            let seen = source == Source::Look && see(job, &report, turn.now);
            if !job.update(&report, turn.now) && !seen {
                turn.refuse(format!("job {id}: {:?} is no news", report.status).to_lowercase());
                return;
            }
            if moved && job.status() <= JobStatus::Queued {
                self.decide_anew(id, turn);
            }
            if word_at_last && before == Some(JobStatus::Completed) {
                self.tell_conclusion(id, turn);
            }
        } else {
            self.take_job(report, source, turn);
        }
        turn.changes.jobs.insert(id);
        if before.is_none() {
            self.end_older_attempts(id, turn);
        }
        self.attribute(id, turn);
        if let Some(job) = self.jobs.get(&id)
            && before != Some(job.status())
        {
            if source == Source::Look {
                tell_found(job, before.is_none(), turn);
            }
            turn.changes.moved_jobs.push((id, job.status()));
            let taker = job
                .taken_by
                .as_ref()
                .and_then(|launch| self.runners.get(launch));
            tell_status(job, taker.map(|runner| &runner.pool), turn);
            self.let_go(id, turn);
        }
        self.consider_rerun(id, turn);
    }

    /// A job that was not known.
    pub(super) fn take_job(&mut self, report: JobReport, source: Source, turn: &mut Turn) {
        let lineage = self.lineage(&report);
        let decision = Decision::Refused(Vec::new());
        let mut job = Job::new(report, decision, turn.now);
        job.lineage = lineage;
        job.decision = self.decide(&job);
        // It may have been known, have ended, and have been forgotten.
        let old = job
            .report
            .created_at
            .is_some_and(|at| elapsed(at, turn.now) >= REMEMBERED);
        job.doubted = old && source == Source::Webhook && job.status() <= JobStatus::Queued;
        self.runs.add(&job);
        self.jobs.insert(job.id(), job);
    }

    fn decide(&self, job: &Job) -> Decision {
        match matching::decide(&self.spec.pools, &job.report) {
            Decision::Served { pool, shape } => Decision::Served {
                pool,
                shape: job.shaped(shape),
            },
            refused @ Decision::Refused(_) => refused,
        }
    }

    /// GitHub makes a new attempt of a completed run only: what is open of older ones has ended unheard.
    fn end_older_attempts(&mut self, id: JobId, turn: &mut Turn) {
        let Some(run) = self.jobs.get(&id).map(|job| job.report.run_id) else {
            return;
        };
        let attempts = self.runs.jobs(run).filter_map(|id| self.jobs.get(&id));
        let newest = attempts.map(Job::attempt).max().unwrap_or(1);
        let older: Vec<JobId> = self
            .runs
            .jobs(run)
            .filter_map(|id| self.jobs.get(&id))
            .filter(|job| job.attempt() < newest && job.status() != JobStatus::Completed)
            .map(Job::id)
            .collect();
        for older in older {
            self.close(older, Closed::Superseded, turn);
        }
    }

    /// Counts a job as completed, without GitHub's word.
    fn close(&mut self, id: JobId, why: Closed, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.status() == JobStatus::Completed {
            return;
        }
        job.close(why, turn.now);
        turn.tell_job(job, "closed", why.words());
        turn.changes.moved_jobs.push((id, JobStatus::Completed));
        self.let_go(id, turn);
    }

    /// We asked GitHub for a job, and there is none.
    pub(super) fn job_missing(&mut self, id: JobId, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.status() == JobStatus::Completed {
            return;
        }
        match job.missing_since {
            None => {
                job.missing_since = Some(turn.now);
                turn.changes.jobs.insert(id);
            }
            Some(since) if elapsed(since, turn.now) >= MISSING => {
                turn.changes.differences.push(Difference::DeletedJob);
                self.close(id, Closed::Deleted, turn);
            }
            Some(_) => {}
        }
    }

    /// What time brings about for jobs.
    pub(super) fn tick_jobs(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let idle = self.long_idle(now, PASSED_OVER);
        let mut expired = Vec::new();
        let mut passed_over = Vec::new();
        for job in self.open_jobs() {
            // From when it was heard of here: of what is older, GitHub was asked.
            let too_old = match job.status() {
                JobStatus::Queued => elapsed(job.known_at, now) >= LONGEST_QUEUED,
                JobStatus::InProgress => {
                    let since = job
                        .started_at
                        .map_or(job.known_at, |at| at.max(job.known_at));
                    elapsed(since, now) >= LONGEST_RUN
                }
                JobStatus::Waiting | JobStatus::Completed => false,
            };
            if too_old {
                expired.push(job.id());
            } else if !job.passed_over
                && job.is_demand()
                && elapsed(job.known_at, now) >= PASSED_OVER
            {
                let Decision::Served { pool, shape } = &job.decision else {
                    continue;
                };
                if let Some(name) = idle.get(&(pool, shape)) {
                    passed_over.push((job.id(), (*name).clone()));
                }
            }
        }
        for id in expired {
            self.close(id, Closed::Expired, turn);
        }
        for (id, name) in passed_over {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.passed_over = true;
                let detail = format!("{name} is idle, and GitHub does not give it the job");
                turn.tell_job(job, "passed over", detail);
            }
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
    pub(super) fn attribute(&mut self, id: JobId, turn: &mut Turn) {
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
        self.job_of_runner_known(&launch, turn);
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
        let waiting = self
            .jobs
            .values()
            .filter(|job| job.status() <= JobStatus::Queued);
        let ids: Vec<JobId> = waiting.map(Job::id).collect();
        for id in ids {
            self.decide_anew(id, turn);
        }
    }

    fn decide_anew(&mut self, id: JobId, turn: &mut Turn) {
        let Some(decision) = self.jobs.get(&id).map(|job| self.decide(job)) else {
            return;
        };
        if let Some(job) = self.jobs.get_mut(&id)
            && decision != job.decision
        {
            job.decision = decision;
            let detail = served_by(job);
            turn.tell_job(job, "decided anew", detail);
        }
    }

    /// GitHub's word on a job that counted as completed without it.
    fn tell_conclusion(&self, id: JobId, turn: &mut Turn) {
        if let Some(job) = self.jobs.get(&id)
            && let Some(conclusion) = &job.report.conclusion
        {
            turn.tell_job(job, "completed", conclusion);
        }
    }
}

/// What a look at a job settles, whether or not it is news: the job is there.
fn see(job: &mut Job, report: &JobReport, now: Timestamp) -> bool {
    let ended_wrongly = match job.closed {
        Some(Closed::Deleted) => true,
        // By a clock that was wrong. What GitHub itself calls as old as that hangs there.
        Some(Closed::Expired) => !is_too_old(report, now),
        _ => false,
    };
    let back = ended_wrongly && report.status < JobStatus::Completed;
    if back {
        job.reopen(report.status);
    }
    let doubted = std::mem::take(&mut job.doubted);
    let missing = job.missing_since.take().is_some();
    back || doubted || missing
}

/// Whether a job is older than GitHub lets any become, by what GitHub says.
fn is_too_old(report: &JobReport, now: Timestamp) -> bool {
    let (since, most) = match report.status {
        JobStatus::InProgress => (report.started_at, LONGEST_RUN),
        _ => (report.created_at, LONGEST_QUEUED),
    };
    since.is_none_or(|at| elapsed(at, now) >= most)
}

fn tell_found(job: &Job, new: bool, turn: &mut Turn) {
    let (difference, detail) = if new {
        (
            Difference::Job,
            "reconciliation: GitHub has it, and no webhook had told of it",
        )
    } else {
        (
            Difference::Status,
            "reconciliation: it has moved on, and no webhook had told of it",
        )
    };
    turn.changes.differences.push(difference);
    turn.tell_job(job, "found", detail);
}

fn tell_status(job: &Job, taken_by: Option<&PoolName>, turn: &mut Turn) {
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
            let whose = match (taken_by, job.pool()) {
                (Some(taker), Some(own)) if taker != own => {
                    format!(" of pool {taker}, in place of one of pool {own}")
                }
                (None, Some(_)) => ", which is not ours".to_owned(),
                _ => String::new(),
            };
            turn.tell_job(job, "started", format!("on {runner}{whose}"));
        }
        JobStatus::Completed => {
            let conclusion = job.report.conclusion.as_deref().unwrap_or("no conclusion");
            turn.tell_job(job, "completed", conclusion);
        }
    }
}

fn served_by(job: &Job) -> String {
    match &job.decision {
        Decision::Served { pool, shape } if *shape == Shape::default() => format!("pool {pool}"),
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
