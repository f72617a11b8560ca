//! The rules of jobs, row by row of the table in `src/fleet/jobs.rs`.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{Tester, at, ended, launched, look, pool, report, running, started, told, webhook};
use muster_core::{
    Closed, Difference, Event, HostPhase, Job, JobId, JobReport, JobStatus, Repository, Stage, Work,
};
use proptest::prelude::*;

fn linux() -> Tester {
    Tester::new(vec![pool("linux")])
}

#[test]
fn a_queued_job_is_demand_once_however_often_it_is_announced() {
    let mut tester = linux();
    assert_eq!(launched(&tester.tell(webhook(report(1)))), 1);
    for event in [webhook(report(1)), look(report(1)), webhook(report(1))] {
        let changes = tester.tell(event);
        assert_eq!((launched(&changes), changes.refused.len()), (0, 1));
    }
    assert_eq!(tester.queued("linux"), 1);
}

#[test]
fn a_job_that_completed_before_it_was_queued_is_never_demand() {
    let mut tester = linux();
    let done = ended(1, "another", "success", 5);
    assert_eq!(launched(&tester.tell(webhook(done))), 0);
    assert_eq!(launched(&tester.tell(webhook(report(1)))), 0);
    assert_eq!(
        (tester.queued("linux"), tester.job(1).status()),
        (0, JobStatus::Completed)
    );
}

#[test]
fn a_job_that_github_holds_back_is_no_demand_before_it_is_queued() {
    let mut tester = linux();
    let waiting = JobReport {
        status: JobStatus::Waiting,
        ..report(1)
    };
    assert_eq!(launched(&tester.tell(webhook(waiting.clone()))), 0);
    assert_eq!(tester.queued("linux"), 0);
    assert_eq!(launched(&tester.tell(webhook(report(1)))), 1);
    tester.tell(webhook(waiting));
    assert_eq!(tester.queued("linux"), 1, "the old news change nothing");
}

#[test]
fn a_job_cancelled_in_the_queue_leaves_no_demand() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").remove(0);
    tester.listens(&launch);
    let cancelled = JobReport {
        status: JobStatus::Completed,
        conclusion: Some("cancelled".into()),
        ..report(1)
    };
    tester.tell(webhook(cancelled));
    assert_eq!(
        (tester.queued("linux"), tester.job(1).started_at),
        (0, None)
    );
    assert!(
        told(&tester.pass(600)).contains(&"draining"),
        "nobody needs the runner"
    );
}

#[test]
fn a_job_is_attributed_to_the_runner_that_github_names() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").remove(0);
    let name = tester.listens(&launch);
    tester.tell(webhook(started(1, name.as_str(), 9)));
    assert_eq!(tester.job(1).taken_by.as_ref(), Some(&launch));
    let runner = tester.fleet.runner(&launch).unwrap();
    assert_eq!((runner.job, runner.stage()), (Some(JobId(1)), Stage::Busy));
}

#[test]
fn a_job_that_another_pools_runner_took_is_attributed_to_it() {
    let mut big = pool("big");
    big.labels.insert("linux".into());
    big.min_idle = 1;
    let mut tester = Tester::new(vec![pool("linux"), big]);
    tester.tell(Event::Tick);
    let idle = tester.launches("big").remove(0);
    let name = tester.listens(&idle);
    tester.tell(webhook(report(1)));
    assert_eq!(tester.job(1).pool(), Some(&"linux".into()));
    let changes = tester.tell(webhook(started(1, name.as_str(), 9)));
    assert_eq!(tester.job(1).taken_by.as_ref(), Some(&idle));
    assert_eq!(tester.queued("linux"), 0);
    let entry = changes
        .timeline
        .iter()
        .find(|entry| entry.what == "started")
        .unwrap();
    assert_eq!(
        entry.detail,
        format!("on {name} of pool big, in place of one of pool linux")
    );
    assert_eq!(launched(&changes), 1, "its pool wants another idle one");
}

#[test]
fn a_job_on_a_foreign_runner_is_no_demand() {
    let mut tester = linux();
    let changes = tester.tell(webhook(started(1, "hosted elsewhere", 9)));
    assert_eq!((launched(&changes), tester.queued("linux")), (0, 0));
    assert_eq!(tester.job(1).taken_by, None);
    assert!(changes.timeline[0].detail.ends_with("which is not ours"));
}

#[test]
fn a_runner_with_an_unannounced_job_counts_against_the_queue_for_a_while() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").remove(0);
    tester.listens(&launch);
    assert_eq!(launched(&tester.phase(&launch, HostPhase::Running)), 0);
    assert_eq!(
        launched(&tester.pass(179)),
        0,
        "most likely it is the job that waits"
    );
    assert_eq!(launched(&tester.pass(2)), 1, "it was another");
}

#[test]
fn a_second_job_of_one_runner_is_a_finding() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").remove(0);
    let name = tester.listens(&launch);
    tester.tell(webhook(started(1, name.as_str(), 9)));
    let changes = tester.tell(webhook(started(2, name.as_str(), 9)));
    assert_eq!(
        changes.refused,
        [format!("{launch} has job 1, and GitHub says it took 2 too")]
    );
    assert_eq!(tester.fleet.runner(&launch).unwrap().job, Some(JobId(1)));
}

#[test]
fn a_job_that_no_webhook_told_of_is_served_and_told() {
    let mut tester = linux();
    let changes = tester.tell(look(report(1)));
    assert_eq!(
        (launched(&changes), &changes.differences[..]),
        (1, &[Difference::Job][..])
    );
    assert_eq!(told(&changes), ["found", "queued", "launch decided"]);
    let changes = tester.tell(look(ended(1, "x", "success", 5)));
    assert_eq!(changes.differences, [Difference::Status]);
    assert_eq!(told(&changes), ["found", "completed"]);
}

#[test]
fn old_news_of_an_unknown_job_launch_nothing_before_github_was_asked() {
    let mut tester = linux();
    tester.second = 3_600;
    assert_eq!(launched(&tester.tell(webhook(report(1)))), 0);
    assert!(tester.job(1).doubted);
    assert_eq!(
        launched(&tester.tell(webhook(report(1)))),
        0,
        "GitHub was not asked"
    );
    assert_eq!(launched(&tester.tell(look(report(1)))), 1);
    assert!(!tester.job(1).doubted);

    tester.tell(webhook(report(2)));
    tester.tell(look(ended(2, "x", "success", 5)));
    assert_eq!((tester.queued("linux"), tester.job(2).doubted), (1, false));
    assert_eq!(
        launched(&tester.tell(look(report(3)))),
        1,
        "GitHub was asked"
    );
}

fn of_attempt(attempt: u32, report: JobReport) -> JobReport {
    JobReport {
        run_attempt: Some(attempt),
        ..report
    }
}

#[test]
fn a_newer_attempt_ends_the_open_jobs_of_older_ones() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    tester.tell(webhook(JobReport {
        run_id: 101,
        ..report(2)
    }));
    tester.tell(webhook(started(4, "x", 5)));
    tester.tell(webhook(JobReport {
        status: JobStatus::Waiting,
        ..report(5)
    }));
    let changes = tester.tell(webhook(of_attempt(2, report(3))));
    for open in [1, 4, 5] {
        assert_eq!(
            tester.job(open).closed,
            Some(Closed::Superseded),
            "job {open}"
        );
    }
    assert_eq!(tester.queued("linux"), 2, "the job of another run waits on");
    assert!(told(&changes).contains(&"closed"));
    // GitHub's own word comes at last.
    let changes = tester.tell(webhook(ended(1, "x", "failure", 5)));
    assert_eq!(told(&changes), ["completed"]);
    assert_eq!(tester.job(1).report.conclusion.as_deref(), Some("failure"));
    assert_eq!(tester.job(1).completed_at, Some(at(5)));
}

#[test]
fn a_late_job_of_an_older_attempt_is_no_demand() {
    let mut tester = linux();
    tester.tell(webhook(of_attempt(2, report(3))));
    let changes = tester.tell(webhook(report(1)));
    assert_eq!((launched(&changes), tester.queued("linux")), (0, 1));
    assert_eq!(tester.job(1).closed, Some(Closed::Superseded));
}

#[test]
fn a_job_that_is_missing_twice_has_ended_until_it_is_seen_again() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    let missing = || Event::JobMissing { job: JobId(1) };
    tester.tell(missing());
    tester.second = 59;
    tester.tell(missing());
    assert_eq!(tester.queued("linux"), 1, "GitHub may lag");
    tester.second = 60;
    let changes = tester.tell(missing());
    assert_eq!(changes.differences, [Difference::DeletedJob]);
    assert_eq!(
        (tester.queued("linux"), tester.job(1).closed),
        (0, Some(Closed::Deleted))
    );

    tester.tell(webhook(report(1)));
    assert_eq!(tester.queued("linux"), 0, "a webhook may be an old one");
    tester.tell(look(report(1)));
    assert_eq!((tester.queued("linux"), tester.job(1).closed), (1, None));
}

#[test]
fn a_running_job_that_github_lost_sight_of_keeps_its_host() {
    let mut tester = linux();
    let (launch, _) = running(&mut tester, 1);
    for _ in 0..2 {
        tester.tell(Event::JobMissing { job: JobId(1) });
        tester.second += 60;
    }
    assert_eq!(tester.job(1).closed, Some(Closed::Deleted));
    tester.pass(3_600);
    assert_eq!(tester.fleet.runner(&launch).unwrap().work, Work::Busy);
}

#[test]
fn a_job_of_a_transferred_repository_is_offered_anew() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    let elsewhere = Repository {
        owner: "another-org".into(),
        ..report(1).repository
    };
    let moved = JobReport {
        repository: elsewhere.clone(),
        ..report(1)
    };
    let changes = tester.tell(look(moved));
    assert_eq!(tester.job(1).report.repository, elsewhere);
    assert_eq!((tester.job(1).pool(), tester.queued("linux")), (None, 0));
    assert!(told(&changes).contains(&"decided anew"));
}

#[test]
fn a_job_that_idle_runners_wait_for_in_vain_is_told_once() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").remove(0);
    let name = tester.listens(&launch);
    assert!(!told(&tester.pass(119)).contains(&"passed over"));
    let changes = tester.pass(1);
    let entry = changes
        .timeline
        .iter()
        .find(|entry| entry.what == "passed over")
        .unwrap();
    assert_eq!(
        entry.detail,
        format!("{name} is idle, and GitHub does not give it the job")
    );
    assert!(tester.job(1).passed_over);
    assert!(!told(&tester.pass(60)).contains(&"passed over"));
    let next = tester
        .fleet
        .explain(JobId(1), at(tester.second))
        .unwrap()
        .next;
    assert!(next.contains("runner group"), "{next}");
}

#[test]
fn a_job_that_is_older_than_github_allows_has_ended() {
    let mut tester = linux();
    tester.tell(webhook(report(1)));
    tester.tell(webhook(started(2, "x", 0)));
    tester.pass(25 * 3_600 - 1);
    assert_eq!(tester.job(1).closed, None);
    tester.pass(1);
    assert_eq!(tester.job(1).closed, Some(Closed::Expired));
    assert_eq!(tester.job(2).closed, None);
    tester.pass(4 * 24 * 3_600);
    assert_eq!(tester.job(2).closed, Some(Closed::Expired));
    // GitHub says that one runs which began so long ago: it knows better.
    tester.tell(look(started(3, "x", 0)));
    tester.pass((5 * 24 + 1) * 3_600 - 1);
    assert_eq!(tester.job(3).closed, None);
    tester.pass(1);
    assert_eq!(tester.job(3).closed, Some(Closed::Expired));
}

/// A job's deliveries, as GitHub sends them in their order.
fn deliveries(name: &str) -> Vec<JobReport> {
    let mut queued = report(1);
    // GitHub fills it with the time of creation.
    queued.started_at = queued.created_at;
    let waiting = JobReport {
        status: JobStatus::Waiting,
        ..queued.clone()
    };
    let mut done = ended(1, name, "success", 20);
    // As of an old server.
    done.installation = None;
    done.started_at = Some(at(10));
    vec![waiting, queued, started(1, name, 10), done]
}

/// What is known of a job in the end, but for when it was heard of.
fn known(job: &Job) -> Job {
    Job {
        known_at: at(0),
        ..job.clone()
    }
}

proptest! {
    #[test]
    fn the_order_of_a_jobs_news_does_not_matter(
        order in Just((0..4).collect::<Vec<usize>>()).prop_shuffle(),
        again in prop::collection::vec((0..4_usize, any::<prop::sample::Index>()), 0..6),
        looks in prop::collection::vec(any::<bool>(), 10),
    ) {
        let tester = || {
            let mut tester = linux();
            tester.tell(webhook(report(99)));
            let launch = tester.launches("linux").remove(0);
            let name = tester.listens(&launch);
            tester.second = 30;
            (tester, name)
        };
        let (mut straight, name) = tester();
        let news = deliveries(name.as_str());
        for report in news.clone() {
            straight.tell(webhook(report));
        }
        let mut order = order;
        for (which, place) in again {
            order.insert(place.index(order.len() + 1), which);
        }
        let (mut shuffled, _) = tester();
        for (which, looked) in order.into_iter().zip(looks) {
            // A look shows what is; only webhooks come late.
            let report = news[which].clone();
            let last = report.status == JobStatus::Completed;
            shuffled.tell(if looked && last { look(report) } else { webhook(report) });
        }
        prop_assert_eq!(known(straight.job(1)), known(shuffled.job(1)));
        prop_assert_eq!(straight.queued("linux"), shuffled.queued("linux"));
        let runner = |tester: &Tester| {
            let runner = tester.fleet.runners().find(|runner| runner.name == name);
            runner.map(|runner| runner.job)
        };
        prop_assert_eq!(runner(&straight), runner(&shuffled));
    }
}
