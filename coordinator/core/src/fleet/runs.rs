//! Which jobs belong to one workflow run.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::JobId;
use crate::job::Job;

/// The jobs that are remembered, by their run. GitHub's ids of runs are unique across repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    jobs: BTreeMap<i64, BTreeSet<JobId>>,
}

impl Runs {
    pub(super) fn of<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> Self {
        let mut runs = Self::default();
        for job in jobs {
            runs.add(job);
        }
        runs
    }

    pub(super) fn add(&mut self, job: &Job) {
        self.jobs
            .entry(job.report.run_id)
            .or_default()
            .insert(job.id());
    }

    pub(super) fn remove(&mut self, job: &Job) {
        if let Some(jobs) = self.jobs.get_mut(&job.report.run_id) {
            jobs.remove(&job.id());
            if jobs.is_empty() {
                self.jobs.remove(&job.report.run_id);
            }
        }
    }

    /// The jobs of a run, of all attempts.
    pub(super) fn jobs(&self, run: i64) -> impl Iterator<Item = JobId> {
        self.jobs.get(&run).into_iter().flatten().copied()
    }
}
