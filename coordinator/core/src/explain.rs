//! Why a job waits, in sentences for the person on call.

use jiff::Timestamp;

use crate::event::JobStatus;
use crate::figures::{Explanation, PoolVerdict};
use crate::fleet::Fleet;
use crate::job::{Decision, Job};
use crate::matching::{self, Shape};
use crate::pool::PoolSpec;
use crate::runner::{Runner, Stage};

pub(crate) fn explain(fleet: &Fleet, job: &Job, now: Timestamp) -> Explanation {
    let pools = fleet
        .pools()
        .iter()
        .map(|pool| verdict(fleet, pool, job, now))
        .collect();
    let (summary, next) = match job.status() {
        JobStatus::Waiting => (
            "GitHub holds the job back, for an approval or a concurrency limit.".to_owned(),
            "GitHub queues it once its condition is met; nothing is launched before.".to_owned(),
        ),
        JobStatus::Queued => queued(fleet, job, now),
        JobStatus::InProgress => (
            format!("It runs on {}.", runner_words(fleet, job)),
            "Its instance is terminated when it ends.".to_owned(),
        ),
        JobStatus::Completed => completed(fleet, job),
    };
    Explanation {
        summary,
        pools,
        next,
    }
}

fn queued(fleet: &Fleet, job: &Job, now: Timestamp) -> (String, String) {
    let waited = seconds(job.queued_at(), now);
    let spec = job.pool().and_then(|name| fleet.pool(name));
    let (Decision::Served { pool, shape }, Some(spec)) = (&job.decision, spec) else {
        return (
            format!("It has waited {waited}, and no pool takes it; each says why below."),
            "Nothing, until a pool takes jobs like this one, or its labels change. GitHub cancels \
             a job that was queued for 24 hours."
                .to_owned(),
        );
    };
    if job.doubted {
        return (
            "Only an old webhook says that it waits; it may have ended long ago.".to_owned(),
            "GitHub is asked within seconds; nothing is launched before.".to_owned(),
        );
    }
    let figures = fleet.count(spec, now);
    let ahead = fleet
        .open_jobs()
        .filter(|other| other.is_demand() && other.pool() == job.pool())
        .filter(|other| (other.queued_at(), other.id()) < (job.queued_at(), job.id()))
        .count();
    let before = match ahead {
        0 => "first in line".to_owned(),
        1 => "one job before it".to_owned(),
        _ => format!("{ahead} jobs before it"),
    };
    (
        format!(
            "It has waited {waited} for pool {pool}, {before}; the pool has {} booting, {} idle, \
             {} busy.",
            figures.booting, figures.idle, figures.busy
        ),
        if job.passed_over && figures.idle > 0 {
            "An idle runner of its pool waits, and GitHub does not give it the job: see whether the \
             pool's runner group admits the repository."
                .to_owned()
        } else {
            next_step(fleet, spec, shape, now)
        },
    )
}

fn next_step(fleet: &Fleet, pool: &PoolSpec, shape: &Shape, now: Timestamp) -> String {
    // GitHub gives it to a runner that has all of its labels.
    let fitting: Vec<&Runner> = fleet
        .present_runners()
        .filter(|runner| runner.pool == pool.name && runner.drain.is_none())
        .filter(|runner| runner.shape.labels.is_superset(&shape.labels))
        .collect();
    if fitting.iter().any(|runner| runner.stage() == Stage::Idle) {
        return "GitHub gives it to an idle runner, within seconds.".to_owned();
    }
    let booting = fitting.iter().filter(|runner| runner.stage() < Stage::Idle);
    if let Some(first) = booting.min_by_key(|runner| runner.marks.created_at) {
        let what = match first.stage() {
            Stage::Launching => "waiting for its instance",
            Stage::Booting => "booting",
            Stage::Enrolled => "waiting for its registration with GitHub",
            _ => "starting its runner",
        };
        let since = seconds(first.marks.stage_since, now);
        let name = &first.name;
        return match &first.held_up {
            Some(reason) => format!("{name} has been {what} for {since}, held up: {reason}."),
            None => format!("{name} has been {what} for {since}; it takes a job once it listens."),
        };
    }
    match fleet.limit_of(pool, shape, now) {
        Some(limit) => format!("A runner is launched as soon as this changes: {limit}."),
        None => "A runner is launched.".to_owned(),
    }
}

fn completed(fleet: &Fleet, job: &Job) -> (String, String) {
    if let Some(closed) = job.closed {
        let summary = format!("It counts as ended: {}.", closed.words());
        return (
            summary,
            "Nothing, unless GitHub tells of it again.".to_owned(),
        );
    }
    let conclusion = job.report.conclusion.as_deref().unwrap_or("no conclusion");
    let mut summary = match job.started_at {
        Some(started) => format!(
            "It ended with {conclusion} on {}, after a wait of {}.",
            runner_words(fleet, job),
            seconds(job.queued_at(), started)
        ),
        None => format!("It ended with {conclusion} without having run."),
    };
    let Some(cut) = &job.cut_short else {
        return (summary, "Nothing.".to_owned());
    };
    summary = format!("{summary} It was interrupted: {}.", cut.cause.words());
    let next = match &cut.rerun {
        Some(rerun) => format!("Its repetition: {rerun}."),
        None => "Nothing.".to_owned(),
    };
    (summary, next)
}

fn runner_words(fleet: &Fleet, job: &Job) -> String {
    let name = job
        .report
        .runner_name
        .as_deref()
        .filter(|name| !name.is_empty());
    match (name, &job.taken_by) {
        (Some(name), Some(launch)) => {
            let pool = fleet.runner(launch).map(|runner| runner.pool.to_string());
            match pool {
                Some(pool) => format!("{name} of pool {pool}"),
                None => name.to_owned(),
            }
        }
        (Some(name), None) => format!("{name}, which is not one of our runners"),
        (None, _) => "a runner that GitHub does not name".to_owned(),
    }
}

fn verdict(fleet: &Fleet, pool: &PoolSpec, job: &Job, now: Timestamp) -> PoolVerdict {
    match matching::offer(pool, &job.report) {
        Err(reason) => PoolVerdict {
            pool: pool.name.clone(),
            accepts: false,
            reason,
        },
        Ok(asked) => {
            let shape = job.shaped(asked);
            let unfit = fleet.held(pool, &shape, now).is_some_and(|hold| hold.unfit);
            PoolVerdict {
                pool: pool.name.clone(),
                accepts: !unfit,
                reason: fleet.limit_of(pool, &shape, now).unwrap_or_default(),
            }
        }
    }
}

/// A span for people: tenths below ten seconds, then seconds, then minutes.
fn seconds(from: Timestamp, to: Timestamp) -> String {
    let tenths = (to.duration_since(from).as_millis() / 100).max(0);
    let seconds = tenths / 10;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0..10) => format!("{seconds}.{}s", tenths % 10),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, HostPhase, JobReport, LaunchFailure};
    use crate::fixtures::{at, pool, report};
    use crate::fleet::{FleetSpec, Stored};
    use crate::ids::{JobId, LaunchId};

    fn fleet(max: u32) -> Fleet {
        let mut linux = pool("linux");
        linux.max = max;
        let mut arm = pool("arm");
        arm.labels.insert("arm64".into());
        let accounts = [("local".into(), 10)].into();
        Fleet::restore(
            FleetSpec {
                pools: vec![linux, arm],
                accounts,
            },
            Stored::default(),
            1,
        )
    }

    fn queue(fleet: &mut Fleet, id: i64, change: impl FnOnce(&mut JobReport)) {
        let mut job = report(id);
        job.created_at = Some(at(0));
        change(&mut job);
        fleet.apply(Event::Job(Box::new(job)), at(2));
    }

    fn only_launch(fleet: &Fleet) -> LaunchId {
        let mut launches = fleet.runners().map(|runner| runner.launch.clone());
        let launch = launches.next().unwrap();
        assert_eq!(launches.next(), None);
        launch
    }

    fn told(fleet: &Fleet, id: i64, second: i64) -> String {
        let explanation = fleet.explain(JobId(id), at(second)).unwrap();
        let mut text = format!("{}\n", explanation.summary);
        for verdict in explanation.pools {
            let word = if verdict.accepts {
                "takes it"
            } else {
                "refuses"
            };
            text += &format!("{} {word}: {}\n", verdict.pool, verdict.reason);
        }
        text + "next: " + &explanation.next
    }

    #[test]
    fn a_job_that_no_pool_takes() {
        let mut fleet = fleet(4);
        queue(&mut fleet, 1, |job| job.labels.push("gpu".into()));
        insta::assert_snapshot!(told(&fleet, 1, 62));
    }

    #[test]
    fn a_job_whose_host_boots() {
        let mut fleet = fleet(4);
        queue(&mut fleet, 1, |_| {});
        let launch = only_launch(&fleet);
        fleet.apply(
            Event::Launched {
                launch,
                instance: "i-0123456789abcdef0".into(),
                offering: None,
            },
            at(5),
        );
        insta::assert_snapshot!(told(&fleet, 1, 12));
    }

    #[test]
    fn a_job_whose_registration_is_held_up() {
        let mut fleet = fleet(4);
        queue(&mut fleet, 1, |_| {});
        let launch = only_launch(&fleet);
        let instance = "i-0123456789abcdef0".into();
        fleet.apply(
            Event::Enrolled {
                launch: launch.clone(),
                instance,
            },
            at(3),
        );
        let phase = HostPhase::Unassigned;
        fleet.apply(
            Event::AgentConnected {
                launch: launch.clone(),
                phase,
                assignment: None,
                heard_at: at(3),
            },
            at(3),
        );
        let held = Event::HeldUp {
            launch,
            reason: "GitHub can't be reached".to_owned(),
        };
        assert_eq!(fleet.apply(held.clone(), at(4)).timeline.len(), 1);
        assert_eq!(
            fleet.apply(held, at(9)).timeline.len(),
            0,
            "the same again is no news"
        );
        insta::assert_snapshot!(told(&fleet, 1, 20));
    }

    #[test]
    fn a_job_behind_others_in_a_full_pool() {
        let mut fleet = fleet(1);
        queue(&mut fleet, 1, |_| {});
        queue(&mut fleet, 2, |_| {});
        let launch = only_launch(&fleet);
        let instance = "i-0123456789abcdef0".into();
        fleet.apply(
            Event::Enrolled {
                launch: launch.clone(),
                instance,
            },
            at(3),
        );
        let phase = HostPhase::Unassigned;
        fleet.apply(
            Event::AgentConnected {
                launch: launch.clone(),
                phase,
                assignment: None,
                heard_at: at(4),
            },
            at(4),
        );
        let name = fleet.runner(&launch).unwrap().name.clone();
        let id = crate::GithubRunnerId(7);
        fleet.apply(
            Event::Minted {
                launch: launch.clone(),
                name: name.clone(),
                id,
            },
            at(5),
        );
        fleet.apply(
            Event::AssignmentAccepted {
                launch: launch.clone(),
                name: name.clone(),
            },
            at(6),
        );
        let phase = HostPhase::Running;
        fleet.apply(
            Event::PhaseChanged {
                launch,
                phase,
                job_name: None,
            },
            at(7),
        );
        queue(&mut fleet, 1, |job| {
            job.status = JobStatus::InProgress;
            job.runner_name = Some(name.to_string());
        });
        insta::assert_snapshot!(told(&fleet, 2, 4000));
        insta::assert_snapshot!(told(&fleet, 1, 4000));
    }

    #[test]
    fn a_job_of_a_pool_whose_launches_fail() {
        let mut fleet = fleet(4);
        queue(&mut fleet, 1, |_| {});
        let launch = only_launch(&fleet);
        let failure = LaunchFailure::Permanent;
        let detail = "the runner can't be copied: no space left on device".to_owned();
        fleet.apply(
            Event::LaunchFailed {
                launch,
                failure,
                detail,
            },
            at(3),
        );
        insta::assert_snapshot!(told(&fleet, 1, 10));
    }

    #[test]
    fn a_job_cancelled_in_the_queue_and_one_that_waits_for_approval() {
        let mut fleet = fleet(4);
        queue(&mut fleet, 1, |job| job.status = JobStatus::Waiting);
        insta::assert_snapshot!(told(&fleet, 1, 3));
        queue(&mut fleet, 2, |job| {
            job.status = JobStatus::Completed;
            job.conclusion = Some("cancelled".into());
        });
        insta::assert_snapshot!(told(&fleet, 2, 3));
    }
}
