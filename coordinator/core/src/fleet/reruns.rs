//! Jobs whose host went in the middle of them: how they are recognised, and how they run again.
//!
//! A job is *cut short* if its runner ended with it for a reason that lies with neither the job nor an
//! operator. Where only silence says so, GitHub has to bear it out: it gives a job up ten minutes after its
//! runner went, and one that failed sooner has failed by itself. Once GitHub calls it failed, and its pool says so,
//! its run is watched; when the run has completed, its interrupted jobs go to GitHub in one call. The intent is
//! stored before the call, and the call is made only while the run has no newer attempt: so an answer that was lost
//! leads to no second one.

use jiff::SignedDuration;

use super::Fleet;
use super::jobs::Source;
use super::turn::Turn;
use crate::effect::Effect;
use crate::event::{JobReport, JobStatus, Outcome};
use crate::ids::{JobId, LaunchId, RunnerName};
use crate::job::Job;
use crate::pool::PoolSpec;
use crate::rerun::{
    Cause, CutShort, Lineage, Rerun, RerunAnswer, RerunCall, RunAttempt, RunSeen, choose,
};
use crate::runner::Work;

/// A completed run with a job whose host has not been judged yet is looked at again after this.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

impl Fleet {
    /// A runner is about to end in the middle of its job.
    pub(super) fn cut_short(&mut self, launch: &LaunchId, cause: Cause, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        // One that waits for a job may have one that nobody has told of.
        let may_have_one = match runner.work {
            Work::Busy => true,
            Work::Found | Work::Assigning | Work::Starting | Work::Idle => cause.is_concluded(),
            Work::Booting | Work::Enrolled | Work::Over { .. } => false,
        };
        if !may_have_one || runner.cut_short.is_some() {
            return;
        }
        // The notice says more than what came of it.
        runner.cut_short = Some(runner.notice.map_or(cause, Cause::from));
        turn.touch(runner);
        self.note_cut_short(launch, !cause.is_concluded(), turn);
    }

    /// Tells the job of a runner that was cut short, once both are known. `told` if the agent told of it.
    fn note_cut_short(&mut self, launch: &LaunchId, told: bool, turn: &mut Turn) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        let (Some(cause), Some(id)) = (runner.cut_short, runner.job) else {
            return;
        };
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let cut = CutShort::of(runner, cause, told, turn.now);
        if job.cut_short.is_some() || failed_by_itself(job, &cut) {
            return;
        }
        job.cut_short = Some(cut);
        turn.tell_job(job, "interrupted", cause.words());
        self.consider_rerun(id, turn);
    }

    /// A job is known to be that of a runner, whose work may be over.
    pub(super) fn job_of_runner_known(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let outcome = self
            .runners
            .get(launch)
            .and_then(|runner| match &runner.work {
                Work::Over { outcome, .. } => *outcome,
                _ => None,
            });
        let told = matches!(outcome, Some(Outcome::Interrupted | Outcome::Abandoned));
        self.note_cut_short(launch, told, turn);
    }

    /// Decides what to do about a job, once it was cut short and has ended at GitHub.
    pub(super) fn consider_rerun(&mut self, id: JobId, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(cut) = job.cut_short.as_ref().filter(|cut| cut.rerun.is_none()) else {
            return;
        };
        if job.status() != JobStatus::Completed || job.closed.is_some() {
            return;
        }
        if failed_by_itself(job, cut) {
            job.cut_short = None;
            let detail = "it had failed before GitHub can have given its runner up";
            turn.tell_job(job, "not interrupted", detail);
            return;
        }
        let borne_out = cut.is_borne_out(job.report.completed_at);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.report.conclusion.as_deref() == Some("success") {
            // It had ended well before its host went.
            return;
        }
        let Some(policy) = self.pool_of(job).and_then(|pool| pool.rerun) else {
            return;
        };
        let newest = self.newest_attempt(job.report.run_id);
        let left = match job.report.conclusion.as_deref() {
            Some("failure") if newest > job.attempt() => {
                Some(format!("attempt {newest} of its run exists"))
            }
            Some("failure") if job.lineage.count >= policy.attempts => Some(format!(
                "it was run again {} of at most {} times",
                job.lineage.count, policy.attempts
            )),
            Some("failure") if borne_out.is_none() => Some(
                match job.report.completed_at {
                    None => "GitHub does not say when it ended, so it may have failed by itself",
                    Some(_) => "nobody knows whether its host was there when it ended, so it may have failed by itself",
                }
                .to_owned(),
            ),
            Some("failure") => None,
            Some(other) => Some(format!("it ended with {other}")),
            None => Some("it ended without a conclusion".to_owned()),
        };
        match left {
            Some(reason) => self.set_rerun(id, Rerun::Left { reason }, turn),
            None => {
                let run = attempt_of(job);
                self.set_rerun(id, Rerun::Watched { again_at: None }, turn);
                turn.emit(Effect::WatchRun { run });
            }
        }
    }

    /// Watches on where a run could not be judged.
    pub(super) fn tick_reruns(&mut self, turn: &mut Turn) {
        let due: Vec<(JobId, RunAttempt)> = self
            .jobs
            .values()
            .filter(|job| match job.cut_short.as_ref().map(|cut| &cut.rerun) {
                Some(Some(Rerun::Watched { again_at: Some(at) })) => {
                    // So far ahead it was set by a clock that was wrong.
                    *at <= turn.now || turn.now.duration_until(*at) > LOOK_AGAIN
                }
                _ => false,
            })
            .map(|job| (job.id(), attempt_of(job)))
            .collect();
        for (id, run) in due {
            self.set_rerun(id, Rerun::Watched { again_at: None }, turn);
            turn.emit(Effect::WatchRun { run });
        }
    }

    /// A run with interrupted jobs has completed.
    pub(super) fn run_completed(&mut self, run: &RunAttempt, seen: &RunSeen, turn: &mut Turn) {
        for report in &seen.jobs {
            let ours = report.runner_name.as_deref().map(RunnerName::new);
            let ours = ours.is_some_and(|name| self.names.contains_key(&name));
            if ours || self.jobs.contains_key(&report.id) {
                self.job_reported(report.clone(), Source::Look, turn);
            }
        }
        let watched = self.of_attempt(run, |rerun| matches!(rerun, Rerun::Watched { .. }));
        let newest = seen.attempt.max(self.newest_attempt(run.run_id));
        let chosen = match seen.conclusion.as_deref() {
            _ if watched.is_empty() => return,
            _ if newest > run.attempt => Err(format!("attempt {newest} of its run exists")),
            Some("cancelled") => Err("its run was cancelled".to_owned()),
            _ if self.is_unjudged(&seen.jobs) => {
                let again_at = turn.now.checked_add(LOOK_AGAIN).ok();
                for id in watched {
                    self.set_rerun(id, Rerun::Watched { again_at }, turn);
                }
                return;
            }
            _ => choose(&watched, &seen.jobs),
        };
        match chosen {
            Ok(call) => {
                if call == RerunCall::FailedJobs {
                    self.remember_failed(&seen.jobs, turn);
                }
                for id in watched {
                    self.set_rerun(id, Rerun::Asked, turn);
                }
                let run = run.clone();
                turn.emit(Effect::Rerun { run, call });
            }
            Err(reason) => self.leave(watched, &reason, turn),
        }
    }

    /// Knows again those that are run again with the interrupted ones, as they may be interrupted in their turn.
    fn remember_failed(&mut self, jobs: &[JobReport], turn: &mut Turn) {
        for report in jobs {
            let well = matches!(report.conclusion.as_deref(), Some("success" | "skipped"));
            if !well && !self.jobs.contains_key(&report.id) {
                self.take_job(report.clone(), Source::Look, turn);
                turn.changes.jobs.insert(report.id);
            }
        }
    }

    /// A run with interrupted jobs is watched no longer.
    pub(super) fn run_left(&mut self, run: &RunAttempt, reason: &str, turn: &mut Turn) {
        let watched = self.of_attempt(run, |rerun| matches!(rerun, Rerun::Watched { .. }));
        self.leave(watched, reason, turn);
    }

    /// GitHub answered, or showed that it had been asked before.
    pub(super) fn rerun_answered(
        &mut self,
        run: &RunAttempt,
        answer: RerunAnswer,
        turn: &mut Turn,
    ) {
        let asked = self.of_attempt(run, |rerun| *rerun == Rerun::Asked);
        if asked.is_empty() {
            turn.refuse(format!("{run}: nobody waits for its repetition"));
            return;
        }
        match &answer {
            RerunAnswer::Started => {
                let attempt = run.attempt.saturating_add(1);
                for id in asked {
                    self.set_rerun(id, Rerun::Done { attempt }, turn);
                }
            }
            RerunAnswer::Newer(attempt) => {
                let attempt = *attempt;
                for id in asked {
                    self.set_rerun(id, Rerun::Done { attempt }, turn);
                }
            }
            RerunAnswer::Refused(reason) => self.leave(asked, &format!("GitHub: {reason}"), turn),
        }
        turn.changes.reruns.push(answer);
    }

    /// What a new job has of earlier attempts of its run.
    pub(super) fn lineage(&self, report: &JobReport) -> Lineage {
        let attempt = report.run_attempt.unwrap_or(1);
        let mut lineage = Lineage::default();
        // What those ask for that it runs again with; a job of its own name counts before them.
        let (mut own, mut others) = (None, None);
        // Whether we asked for this attempt, and how often we had for this job, if it was in the one before.
        let (mut ours, mut before) = (false, None);
        let earlier = self
            .runs
            .jobs(report.run_id)
            .filter_map(|id| self.jobs.get(&id));
        for job in earlier.filter(|job| job.attempt() < attempt) {
            let asked = job
                .cut_short
                .as_ref()
                .and_then(|cut| cut.rerun.as_ref())
                .is_some_and(Rerun::counts);
            let same = job.report.name == report.name;
            if same {
                let count = job.lineage.count + u32::from(asked);
                lineage.count = lineage.count.max(count);
            }
            let just_before = job.attempt() + 1 == attempt;
            if same && just_before {
                before = Some(job.lineage.count);
            }
            ours |= asked && just_before;
            if asked && just_before {
                let policy = self.pool_of(job).and_then(|pool| pool.rerun);
                let market = policy.and_then(|policy| policy.market);
                if same {
                    lineage.of = Some(job.id());
                    own = Some(market);
                } else {
                    // On-demand is more than Spot, and either is more than nothing.
                    others = others.max(market);
                }
            }
        }
        lineage.market = own.unwrap_or(others);
        // It may have gone with others that were interrupted: that is once more, too.
        if let Some(before) = before.filter(|_| ours) {
            lineage.count = lineage.count.max(before + 1);
        }
        lineage
    }

    /// Whether a job of a completed run failed on a runner of ours that has not ended: its host may have
    /// gone, too.
    fn is_unjudged(&self, jobs: &[JobReport]) -> bool {
        jobs.iter()
            .filter(|job| job.conclusion.as_deref() == Some("failure"))
            .filter_map(|job| self.jobs.get(&job.id)?.taken_by.as_ref())
            .filter_map(|launch| self.runners.get(launch))
            .any(|runner| !runner.is_over())
    }

    /// The interrupted jobs of one attempt whose repetition is so far.
    fn of_attempt(&self, run: &RunAttempt, so_far: impl Fn(&Rerun) -> bool) -> Vec<JobId> {
        self.runs
            .jobs(run.run_id)
            .filter_map(|id| self.jobs.get(&id))
            .filter(|job| job.attempt() == run.attempt)
            .filter(|job| {
                let rerun = job.cut_short.as_ref().and_then(|cut| cut.rerun.as_ref());
                rerun.is_some_and(&so_far)
            })
            .map(Job::id)
            .collect()
    }

    fn newest_attempt(&self, run: i64) -> u32 {
        let jobs = self.runs.jobs(run).filter_map(|id| self.jobs.get(&id));
        jobs.map(Job::attempt).max().unwrap_or(1)
    }

    /// The pool whose runner had a job, or that would have served it.
    fn pool_of(&self, job: &Job) -> Option<&PoolSpec> {
        let taker = job
            .taken_by
            .as_ref()
            .and_then(|launch| self.runners.get(launch));
        // A job that no pool takes may have come to a runner of ours: GitHub goes by groups, too.
        match taker {
            Some(runner) => self.pool(&runner.pool),
            None => self.pool(job.pool()?),
        }
    }

    fn leave(&mut self, jobs: Vec<JobId>, reason: &str, turn: &mut Turn) {
        for id in jobs {
            let reason = reason.to_owned();
            self.set_rerun(id, Rerun::Left { reason }, turn);
        }
    }

    fn set_rerun(&mut self, id: JobId, rerun: Rerun, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(cut) = &mut job.cut_short else {
            return;
        };
        let told = match (&cut.rerun, &rerun) {
            // Only when it is looked at again differs.
            (Some(Rerun::Watched { .. }), Rerun::Watched { .. }) => None,
            _ => Some(rerun.to_string()),
        };
        cut.rerun = Some(rerun);
        cut.decided_at = Some(turn.now);
        turn.changes.jobs.insert(id);
        if let Some(detail) = told {
            turn.tell_job(job, "re-run", detail);
        }
    }
}

/// Whether GitHub says that a job failed sooner than a host that went can have made it fail.
fn failed_by_itself(job: &Job, cut: &CutShort) -> bool {
    job.status() == JobStatus::Completed
        && job.report.conclusion.as_deref() == Some("failure")
        && cut.is_borne_out(job.report.completed_at) == Some(false)
}

fn attempt_of(job: &Job) -> RunAttempt {
    RunAttempt {
        repository: job.report.repository.clone(),
        run_id: job.report.run_id,
        attempt: job.attempt(),
    }
}
