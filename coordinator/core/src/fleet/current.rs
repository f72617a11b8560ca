//! Which jobs and runners decisions are about. An hour's worth of others is only remembered, and a busy
//! coordinator decides hundreds of times a second.

use std::collections::{BTreeMap, BTreeSet};

use super::Fleet;
use super::turn::Turn;
use crate::event::JobStatus;
use crate::ids::{JobId, LaunchId};
use crate::job::Job;
use crate::runner::{Runner, Stage};

/// Jobs that have not ended, and runners that are not gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Current {
    jobs: BTreeSet<JobId>,
    runners: BTreeSet<LaunchId>,
}

impl Current {
    pub(super) fn of(jobs: &BTreeMap<JobId, Job>, runners: &BTreeMap<LaunchId, Runner>) -> Self {
        let jobs = jobs.values().filter(|job| is_open(job));
        let runners = runners.values().filter(|runner| is_here(runner));
        Self {
            jobs: jobs.map(Job::id).collect(),
            runners: runners.map(|runner| runner.launch.clone()).collect(),
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.runners.is_empty()
    }

    /// Notes a runner that is new.
    pub(super) fn add_runner(&mut self, launch: LaunchId) {
        self.runners.insert(launch);
    }

    /// The launches of the runners.
    pub(super) fn launches(&self) -> impl Iterator<Item = &LaunchId> {
        self.runners.iter()
    }
}

fn is_open(job: &Job) -> bool {
    job.status() != JobStatus::Completed
}

fn is_here(runner: &Runner) -> bool {
    runner.stage() != Stage::Gone
}

impl Fleet {
    /// The jobs that have not ended.
    pub(crate) fn open_jobs(&self) -> impl Iterator<Item = &Job> {
        let ids = self.current.jobs.iter();
        ids.filter_map(|id| self.jobs.get(id))
    }

    /// The runners that are not gone.
    pub(crate) fn present_runners(&self) -> impl Iterator<Item = &Runner> {
        let launches = self.current.runners.iter();
        launches.filter_map(|launch| self.runners.get(launch))
    }

    /// Brings up to date what is current, by what has changed.
    pub(super) fn note_current(&mut self, turn: &Turn) {
        let changes = &turn.changes;
        for id in changes.jobs.iter().chain(&changes.forgotten_jobs) {
            if self.jobs.get(id).is_some_and(is_open) {
                self.current.jobs.insert(*id);
            } else {
                self.current.jobs.remove(id);
            }
        }
        for launch in changes.runners.iter().chain(&changes.forgotten_runners) {
            if self.runners.get(launch).is_some_and(is_here) {
                self.current.runners.insert(launch.clone());
            } else {
                self.current.runners.remove(launch);
            }
        }
    }
}
