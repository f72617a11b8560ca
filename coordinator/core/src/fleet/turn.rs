//! One call of `apply`: its time, and what it has changed so far.

use jiff::Timestamp;

use crate::changes::{Changes, TimelineEntry};
use crate::effect::Effect;
use crate::ids::RunnerName;
use crate::job::Job;
use crate::pool::PoolSpec;
use crate::runner::{Illegal, Runner};

/// What one event has changed so far.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Timestamp,
    pub(super) changes: Changes,
}

impl Turn {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            changes: Changes::default(),
        }
    }

    pub(super) fn finish(self) -> Changes {
        self.changes
    }

    /// Whether any record changed.
    pub(super) fn has_changed(&self) -> bool {
        let changes = &self.changes;
        !(changes.jobs.is_empty() && changes.runners.is_empty() && changes.pools.is_empty())
    }

    /// Wants something done.
    pub(super) fn emit(&mut self, effect: Effect) {
        self.changes.effects.push(effect);
    }

    /// Records that an event did not fit.
    pub(super) fn refuse(&mut self, reason: impl Into<String>) {
        self.changes.refused.push(reason.into());
    }

    /// Marks a runner as changed.
    pub(super) fn touch(&mut self, runner: &Runner) {
        self.changes.runners.insert(runner.launch.clone());
    }

    /// Takes the outcome of a step: true if it changed the runner; a refusal is recorded.
    pub(super) fn stepped(&mut self, runner: &Runner, step: Result<bool, Illegal>) -> bool {
        match step {
            Ok(changed) => {
                if changed {
                    self.touch(runner);
                }
                changed
            }
            Err(illegal) => {
                self.refuse(illegal.to_string());
                false
            }
        }
    }

    /// Tells of a runner.
    pub(super) fn tell(&mut self, runner: &Runner, what: &str, detail: impl Into<String>) {
        self.touch(runner);
        self.changes.timeline.push(TimelineEntry {
            at: self.now,
            what: what.to_owned(),
            detail: detail.into(),
            pool: Some(runner.pool.clone()),
            launch: Some(runner.launch.clone()),
            runner: Some(runner.name.clone()),
            job: runner.job,
        });
    }

    /// Tells of a job.
    pub(super) fn tell_job(&mut self, job: &Job, what: &str, detail: impl Into<String>) {
        self.changes.jobs.insert(job.id());
        self.changes.timeline.push(TimelineEntry {
            at: self.now,
            what: what.to_owned(),
            detail: detail.into(),
            pool: job.pool().cloned(),
            launch: job.taken_by.clone(),
            runner: job.report.runner_name.as_deref().map(RunnerName::new),
            job: Some(job.id()),
        });
    }

    /// Tells of a pool.
    pub(super) fn tell_pool(&mut self, pool: &PoolSpec, what: &str, detail: impl Into<String>) {
        self.changes.timeline.push(TimelineEntry {
            at: self.now,
            what: what.to_owned(),
            detail: detail.into(),
            pool: Some(pool.name.clone()),
            launch: None,
            runner: None,
            job: None,
        });
    }
}
