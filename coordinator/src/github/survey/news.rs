//! What of the survey is news to the fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Closed, Event, Fleet, JobId, JobReport, JobStatus, Repository};

use super::place::key;
use crate::clock;
use crate::engine::{Engine, Stopped};

/// A new job is left so long to its webhook, which comes within 2 s at the median and 3 s at the 90th
/// percentile (<https://carbonrunner.io/stats>).
const WEBHOOK_FIRST: Duration = Duration::from_secs(2);
/// The same for the start or the end of a job, for which nobody waits.
const WEBHOOK_FIRST_OF_MOVES: Duration = Duration::from_secs(5);

/// Tells the fleet that a repository is gone, or one run of it. Its jobs are asked for singly then,
/// before they count as ended.
pub(super) async fn missing(
    engine: &Engine,
    of: &Repository,
    run: Option<i64>,
) -> Result<(), Stopped> {
    let of = key(of);
    let jobs: Vec<JobId> = engine
        .query(move |fleet| {
            let open = fleet
                .jobs()
                .filter(|job| job.status() != JobStatus::Completed);
            open.filter(|job| job.missing_since.is_none())
                .filter(|job| run.is_none_or(|run| job.report.run_id == run))
                .filter(|job| key(&job.report.repository) == of)
                .map(muster_core::Job::id)
                .collect()
        })
        .await?;
    for job in jobs {
        engine.submit(Event::JobMissing { job }).await?;
    }
    Ok(())
}

/// Whether jobs of a run were given up since it was read: GitHub had no answer for a while, and has one again.
pub(super) fn is_lost(fleet: &Fleet, run: i64, read_at: Option<Timestamp>) -> bool {
    let jobs = fleet.jobs().filter(|job| job.report.run_id == run);
    jobs.filter(|job| job.closed == Some(Closed::Deleted))
        .any(|job| job.completed_at >= read_at)
}

/// Tells the fleet of jobs that it has other news of. Answers for how long some are left to their webhooks.
pub(super) async fn hand_over(
    engine: &Engine,
    jobs: Vec<JobReport>,
) -> Result<Option<Duration>, Stopped> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let known: BTreeMap<JobId, Known> = engine
        .query(move |fleet| {
            let known = ids.into_iter().filter_map(|id| fleet.job(id));
            known
                .map(|job| {
                    let open = job.doubted || job.missing_since.is_some();
                    let known = Known {
                        status: job.status(),
                        sure: !open && job.closed.is_none(),
                    };
                    (job.id(), known)
                })
                .collect()
        })
        .await?;
    let mut left: Option<Duration> = None;
    for report in jobs {
        let news = match known.get(&report.id) {
            Some(known) => !known.sure || report.status > known.status,
            None => report.status != JobStatus::Completed,
        };
        if !news {
            continue;
        }
        if let Some(fresh) = fresh_for(&report) {
            left = Some(left.map_or(fresh, |left| left.min(fresh)));
            continue;
        }
        engine.submit(Event::JobFound(Box::new(report))).await?;
    }
    Ok(left)
}

/// What the fleet knows of a job.
struct Known {
    status: JobStatus,
    sure: bool,
}

/// For how long what a job says is so new that its webhook is most likely still on its way; none if it isn't.
fn fresh_for(report: &JobReport) -> Option<Duration> {
    let (since, first) = match report.status {
        JobStatus::Waiting | JobStatus::Queued => (report.created_at, WEBHOOK_FIRST),
        JobStatus::InProgress => (report.started_at, WEBHOOK_FIRST_OF_MOVES),
        JobStatus::Completed => (report.completed_at, WEBHOOK_FIRST_OF_MOVES),
    };
    // A clock that is behind GitHub's must not keep a job waiting.
    let age = Duration::try_from(clock::now().duration_since(since?)).ok()?;
    first.checked_sub(age).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_core::{FleetSpec, Stored};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_run_is_read_again_once_after_its_jobs_were_given_up() {
        let spec = FleetSpec {
            pools: Vec::new(),
            accounts: BTreeMap::new(),
        };
        let mut fleet = Fleet::restore(spec, Stored::default(), 1);
        let job = crate::store::fixtures::job(7, JobStatus::Queued, 1);
        let (id, run) = (job.id(), job.report.run_id);
        fleet.apply(Event::Job(Box::new(job.report)), at(0));
        assert!(!is_lost(&fleet, run, Some(at(0))));
        fleet.apply(Event::JobMissing { job: id }, at(100));
        fleet.apply(Event::JobMissing { job: id }, at(200));
        assert!(is_lost(&fleet, run, Some(at(0))));
        assert!(!is_lost(&fleet, run + 1, Some(at(0))));
        assert!(!is_lost(&fleet, run, Some(at(201))));
    }
}
