//! Launches that can't be made at present, and launches that never can: neither multiplies, fills the pool or
//! stops the others.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use jiff::ToSpan as _;
use muster_core::{
    Changes, Effect, Event, Fleet, FleetSpec, JobId, JobStatus, LaunchFailure, LaunchId, Stored,
    TimeLimits,
};

use self::kit::{at, pool, report, webhook};

fn fleet(max: u32) -> Fleet {
    let mut pool = pool("linux");
    pool.sizes.cpus = [4, 64].into();
    pool.max = max;
    pool.limits = TimeLimits::default();
    let spec = FleetSpec {
        pools: vec![pool],
        accounts: [("local".into(), 100)].into(),
    };
    Fleet::restore(spec, Stored::default(), 1)
}

fn job(id: i64, labels: &[&str], status: JobStatus) -> Event {
    let mut job = report(id);
    let labels = labels.iter().map(|&label| label.to_owned());
    job.labels.extend(labels);
    job.status = status;
    job.conclusion = (status == JobStatus::Completed).then(|| "cancelled".into());
    webhook(job)
}

/// The launches that are to be made, each with its shape.
fn launches(changes: &Changes) -> Vec<(LaunchId, String)> {
    let launch = |effect: &Effect| match effect {
        Effect::Launch { launch, shape, .. } => Some((launch.clone(), shape.to_string())),
        _ => None,
    };
    changes.effects.iter().filter_map(launch).collect()
}

/// The launches that are withdrawn.
fn withdrawn(changes: &Changes) -> Vec<LaunchId> {
    let withdrawn = |effect: &Effect| match effect {
        Effect::Withdraw { launch, .. } => Some(launch.clone()),
        _ => None,
    };
    changes.effects.iter().filter_map(withdrawn).collect()
}

fn failed(launch: &LaunchId, failure: LaunchFailure, detail: &str) -> Event {
    Event::LaunchFailed {
        launch: launch.clone(),
        failure,
        detail: detail.to_owned(),
    }
}

/// Lets seconds pass; gives all that is done in them.
fn pass(fleet: &mut Fleet, from: i64, to: i64) -> Vec<(i64, Changes)> {
    let seconds = from..to;
    let ticks = seconds.map(|second| (second, fleet.apply(Event::Tick, at(second))));
    ticks.collect()
}

#[test]
fn one_job_is_one_launch_however_long_the_provider_is_away() {
    let mut fleet = fleet(10);
    let first = fleet.apply(job(1, &[], JobStatus::Queued), at(0));
    assert_eq!(launches(&first).len(), 1);
    for (second, changes) in pass(&mut fleet, 1, 2 * 3600) {
        assert_eq!(launches(&changes), [], "after {second} s");
        assert_eq!(withdrawn(&changes), [], "after {second} s");
    }
    // It boots from when it is there.
    let launch = launches(&first).remove(0).0;
    let launched = Event::Launched {
        launch: launch.clone(),
        instance: "i-1".into(),
        offering: None,
    };
    fleet.apply(launched, at(2 * 3600));
    fleet.apply(Event::Tick, at(2 * 3600 + 299));
    assert!(!fleet.runner(&launch).unwrap().is_over());
    fleet.apply(Event::Tick, at(2 * 3600 + 300));
    assert!(fleet.runner(&launch).unwrap().is_over());
}

#[test]
fn a_launch_whose_job_was_cancelled_is_withdrawn_until_it_is_answered() {
    let mut fleet = fleet(10);
    let launch = launches(&fleet.apply(job(1, &[], JobStatus::Queued), at(0))).remove(0);
    let cancelled = fleet.apply(job(1, &[], JobStatus::Completed), at(5));
    assert_eq!(withdrawn(&cancelled), [], "it may be under way");
    let asked: Vec<(i64, LaunchId)> = pass(&mut fleet, 6, 200)
        .into_iter()
        .flat_map(|(second, changes)| withdrawn(&changes).into_iter().map(move |it| (second, it)))
        .collect();
    let times = [60, 120, 180].map(|second| (second, launch.0.clone()));
    assert_eq!(asked, times);
    // Another process has to be told too.
    assert_eq!(
        withdrawn(&fleet.apply(Event::Restarted, at(201))),
        std::slice::from_ref(&launch.0)
    );

    let answer = failed(
        &launch.0,
        LaunchFailure::Withdrawn,
        "nobody needs it any more",
    );
    let changes = fleet.apply(answer, at(202));
    assert!(fleet.runner(&launch.0).unwrap().is_gone());
    assert!(changes.pools.is_empty(), "nothing is wrong with the pool");
    assert_eq!(
        launches(&fleet.apply(job(2, &[], JobStatus::Queued), at(203))).len(),
        1
    );
}

#[test]
fn a_launch_that_is_withdrawn_while_a_new_job_comes_is_made_up_for() {
    let mut fleet = fleet(10);
    let launch = launches(&fleet.apply(job(1, &[], JobStatus::Queued), at(0))).remove(0);
    fleet.apply(job(1, &[], JobStatus::Completed), at(5));
    pass(&mut fleet, 6, 61);
    // It counts until it is answered.
    assert_eq!(
        launches(&fleet.apply(job(2, &[], JobStatus::Queued), at(62))),
        []
    );
    let answer = failed(
        &launch.0,
        LaunchFailure::Withdrawn,
        "nobody needs it any more",
    );
    assert_eq!(launches(&fleet.apply(answer, at(63))).len(), 1);
}

#[test]
fn what_an_operator_ends_before_it_is_made_is_withdrawn() {
    let mut fleet = fleet(10);
    let (launch, _) = launches(&fleet.apply(job(1, &[], JobStatus::Queued), at(0))).remove(0);
    let end = Event::OperatorTerminate {
        launch: launch.clone(),
        reason: "test".into(),
    };
    let changes = fleet.apply(end, at(1));
    assert_eq!(withdrawn(&changes), std::slice::from_ref(&launch));
    // It was too late: the instance is ended.
    let launched = Event::Launched {
        launch: launch.clone(),
        instance: "i-1".into(),
        offering: None,
    };
    let changes = fleet.apply(launched, at(2));
    let ended =
        |effect: &Effect| matches!(effect, Effect::Terminate { launch: it, .. } if *it == launch);
    assert!(changes.effects.iter().any(ended), "{:?}", changes.effects);
}

#[test]
fn a_size_that_the_provider_never_has_stops_nobody_else() {
    let mut fleet = fleet(10);
    let large = fleet.apply(job(1, &["muster/cpu=64"], JobStatus::Queued), at(0));
    let (launch, _) = launches(&large).remove(0);
    let unfit = failed(&launch, LaunchFailure::Unfit, "no type has 64 processors");
    assert_eq!(launches(&fleet.apply(unfit, at(1))), []);
    let small = fleet.apply(job(2, &[], JobStatus::Queued), at(2));
    assert_eq!(launches(&small)[0].1, "any size");
    let sized = fleet.apply(job(3, &["muster/cpu=4"], JobStatus::Queued), at(3));
    assert_eq!(launches(&sized)[0].1, "muster/cpu=4");

    let explained = fleet.explain(JobId(1), at(4)).unwrap();
    let verdict = &explained.pools[0];
    assert!(!verdict.accepts, "{verdict:?}");
    assert!(
        verdict.reason.contains("no type has 64 processors"),
        "{verdict:?}"
    );
    assert!(
        explained.next.contains("no type has 64 processors"),
        "{explained:?}"
    );
    let other = fleet.explain(JobId(2), at(4)).unwrap();
    assert!(
        other.pools[0].accepts && other.pools[0].reason.is_empty(),
        "{other:?}"
    );
    // Somebody may have added a type.
    assert_eq!(launches(&fleet.apply(Event::Tick, at(302))).len(), 1);
}

#[test]
fn a_quota_of_one_shape_is_waited_for_longer_each_time_and_forgotten_once_it_works() {
    let mut fleet = fleet(10);
    let changes = fleet.apply(job(1, &["muster/cpu=4"], JobStatus::Queued), at(0));
    let (mut launch, _) = launches(&changes).remove(0);
    let mut now = 1;
    for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
        fleet.apply(failed(&launch, LaunchFailure::Quota, "none left"), at(now));
        let held = fleet.pool_state(&"linux".into()).held;
        assert_eq!(held[0].until, at(now).checked_add(wait.seconds()).unwrap());
        now += wait;
        launch = launches(&fleet.apply(Event::Tick, at(now))).remove(0).0;
    }
    let resumed = Event::OperatorPause {
        pool: "linux".into(),
        paused: None,
    };
    fleet.apply(failed(&launch, LaunchFailure::Quota, "none left"), at(now));
    assert_eq!(launches(&fleet.apply(resumed, at(now + 1))).len(), 1);
    assert_eq!(fleet.pool_state(&"linux".into()).held, []);
}
