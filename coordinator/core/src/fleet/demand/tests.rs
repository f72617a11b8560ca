use super::*;
use crate::event::Event;
use crate::fixtures::{at, pool, report};
use crate::fleet::{FleetSpec, Stored};

fn queue(fleet: &mut Fleet, id: i64, labels: &[&str], second: i64) {
    let mut job = report(id);
    job.labels
        .extend(labels.iter().map(|&label| label.to_owned()));
    job.created_at = Some(at(second));
    fleet.apply(Event::Job(Box::new(job)), at(second));
}

/// The labels of the launches, in the order of their decision.
fn shapes(fleet: &Fleet) -> Vec<String> {
    let mut runners: Vec<_> = fleet.runners().collect();
    runners.sort_by_key(|runner| runner.marks.created_at);
    runners
        .iter()
        .map(|runner| runner.shape.to_string())
        .collect()
}

#[test]
fn in_a_full_pool_the_job_that_waits_longest_is_next_whatever_it_asks_for() {
    let mut linux = pool("linux");
    linux.max = 2;
    linux.sizes.cpus = [4].into();
    let spec = FleetSpec {
        pools: vec![linux],
        accounts: [("local".into(), 9)].into(),
    };
    let mut fleet = Fleet::restore(spec, Stored::default(), 1);
    queue(&mut fleet, 1, &[], 0);
    queue(&mut fleet, 2, &[], 1);
    queue(&mut fleet, 3, &["muster/cpu=4"], 2);
    queue(&mut fleet, 4, &[], 3);
    queue(&mut fleet, 5, &[], 4);
    assert_eq!(shapes(&fleet), ["any size", "any size"]);

    let first = fleet.runners().min_by_key(|runner| runner.marks.created_at);
    let launch = first.unwrap().launch.clone();
    // Its job has ended, and it is gone.
    let mut done = report(1);
    done.status = crate::event::JobStatus::Completed;
    fleet.apply(Event::Job(Box::new(done)), at(10));
    let failure = crate::event::LaunchFailure::Capacity;
    fleet.apply(
        Event::LaunchFailed {
            launch,
            failure,
            detail: "none left".to_owned(),
        },
        at(10),
    );
    fleet.apply(Event::Tick, at(60));
    assert_eq!(shapes(&fleet).last().unwrap(), "muster/cpu=4");
}

#[test]
fn what_comes_together_is_weighed_together() {
    let spec = FleetSpec {
        pools: vec![pool("linux")],
        accounts: [("local".into(), 9)].into(),
    };
    let mut fleet = Fleet::restore(spec, Stored::default(), 1);
    let mut cancelled = report(1);
    cancelled.status = crate::event::JobStatus::Completed;
    let events = [report(1), report(2), cancelled].map(|job| Event::Job(Box::new(job)));
    let changes = fleet.apply_all(events, at(0));
    let launches = |effect: &&Effect| matches!(effect, Effect::Launch { .. });
    assert_eq!(changes.effects.iter().filter(launches).count(), 1);
    assert_eq!((changes.jobs.len(), changes.runners.len()), (2, 1));
}

#[test]
fn a_pool_is_exhausted_while_jobs_wait_for_want_of_room_and_only_then() {
    let mut linux = pool("linux");
    (linux.max, linux.min_idle) = (2, 1);
    let spec = FleetSpec {
        pools: vec![linux.clone()],
        accounts: [("local".into(), 9)].into(),
    };
    let mut fleet = Fleet::restore(spec, Stored::default(), 1);
    let figures = |fleet: &Fleet, second| fleet.figures(&"linux".into(), at(second));
    queue(&mut fleet, 1, &[], 0);
    assert_eq!(fleet.runners().count(), 2);
    assert_eq!(figures(&fleet, 1).maximum, 2);
    assert!(!figures(&fleet, 1).exhausted, "a host comes for the job");
    queue(&mut fleet, 2, &[], 2);
    queue(&mut fleet, 3, &[], 3);
    let full = figures(&fleet, 3);
    assert!(full.exhausted);
    let limited = full.limited_by.unwrap();
    assert!(limited.contains("2 of at most 2"), "{limited}");
    // No job waits; the idle floor alone has no room.
    for id in 1..=3 {
        let mut done = report(id);
        done.status = crate::event::JobStatus::Completed;
        fleet.apply(Event::Job(Box::new(done)), at(4));
    }
    assert!(!figures(&fleet, 4).exhausted);

    // A host comes for the job, and only the idle floor has no room.
    let spec = FleetSpec {
        pools: vec![PoolSpec {
            min_idle: 2,
            ..linux.clone()
        }],
        accounts: [("local".into(), 9)].into(),
    };
    let mut fleet = Fleet::restore(spec, Stored::default(), 1);
    queue(&mut fleet, 1, &[], 0);
    assert!(figures(&fleet, 1).limited_by.is_some());
    assert!(!figures(&fleet, 1).exhausted);

    let spec = FleetSpec {
        pools: vec![linux],
        accounts: [("local".into(), 1)].into(),
    };
    let mut fleet = Fleet::restore(spec, Stored::default(), 1);
    queue(&mut fleet, 1, &[], 0);
    queue(&mut fleet, 2, &[], 0);
    assert!(figures(&fleet, 1).exhausted, "the account has no room");
}

#[test]
fn a_pool_that_is_held_back_is_not_exhausted() {
    let mut linux = pool("linux");
    linux.sizes.cpus = [4].into();
    let spec = FleetSpec {
        pools: vec![linux],
        accounts: [("local".into(), 9)].into(),
    };
    let mut fleet = Fleet::restore(spec, Stored::default(), 1);
    queue(&mut fleet, 1, &["muster/cpu=4"], 0);
    let launch = fleet.runners().next().unwrap().launch.clone();
    let failed = Event::LaunchFailed {
        launch,
        failure: crate::event::LaunchFailure::Capacity,
        detail: "none left".to_owned(),
    };
    fleet.apply(failed, at(1));
    let figures = fleet.figures(&"linux".into(), at(2));
    assert!(figures.limited_by.is_some() && !figures.exhausted);
}
