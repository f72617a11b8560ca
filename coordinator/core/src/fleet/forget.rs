//! What ended long ago, and is not kept in memory any more. The store has it still.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::Fleet;
use super::demand::elapsed;
use super::turn::Turn;
use crate::event::JobStatus;
use crate::job::Job;
use crate::rerun::Rerun;

/// Ended jobs and runners that are gone are remembered this long, then only the store has them.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Jobs that were cut short are remembered this long: what comes of them is counted.
const REMEMBERED_CUT_SHORT: Duration = Duration::from_secs(24 * 60 * 60);

impl Fleet {
    pub(super) fn forget(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let watched: BTreeSet<i64> = self
            .jobs
            .values()
            .filter(|job| keeps_its_run(job, now))
            .map(|job| job.report.run_id)
            .collect();
        let old = |at: Option<Timestamp>| at.is_some_and(|at| elapsed(at, now) >= REMEMBERED);
        for job in self.jobs.values() {
            // What is found to have ended long ago is stored first: what is forgotten can't be read any more by then.
            let changed = &self.changed_before;
            let changed = changed.contains(&job.id()) || turn.changes.jobs.contains(&job.id());
            let kept = changed || watched.contains(&job.report.run_id);
            if job.status() == JobStatus::Completed && is_forgettable(job, now) && !kept {
                turn.changes.forgotten_jobs.insert(job.id());
            }
        }
        for runner in self
            .runners
            .values()
            .filter(|runner| old(runner.marks.gone_at))
        {
            turn.changes.forgotten_runners.insert(runner.launch.clone());
        }
        for id in &turn.changes.forgotten_jobs {
            if let Some(job) = self.jobs.remove(id) {
                self.runs.remove(&job);
            }
            turn.changes.jobs.remove(id);
        }
        for launch in &turn.changes.forgotten_runners {
            self.runners.remove(launch);
            turn.changes.runners.remove(launch);
        }
        if !turn.changes.forgotten_runners.is_empty() {
            let gone = &turn.changes.forgotten_runners;
            self.names.retain(|_, launch| !gone.contains(launch));
        }
    }
}

/// Whether a job that has ended need not be kept in memory any more.
fn is_forgettable(job: &Job, now: Timestamp) -> bool {
    let ended_at = job.completed_at.max(Some(job.known_at));
    let kept = match job.cut_short {
        Some(_) => REMEMBERED_CUT_SHORT,
        None => REMEMBERED,
    };
    ended_at.is_some_and(|at| elapsed(at, now) >= kept)
}

/// Whether all jobs of a run are kept for one of them: it is or was run again, and how often each of them was is
/// known by those of the attempts before.
fn keeps_its_run(job: &Job, now: Timestamp) -> bool {
    let Some(cut) = &job.cut_short else {
        return false;
    };
    let lately = |at: Timestamp| elapsed(at, now) < REMEMBERED_CUT_SHORT;
    match &cut.rerun {
        Some(Rerun::Watched { .. } | Rerun::Asked) => true,
        Some(Rerun::Done { .. }) => cut.decided_at.is_some_and(lately),
        Some(Rerun::Left { .. }) | None => false,
    }
}
