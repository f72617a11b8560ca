//! Runners that aren't known to listen in time: they may have a job all the same, and only GitHub can tell.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{Tester, at, ended, finished, pool, report, told, webhook};
use muster_core::{
    Changes, DeregisterAnswer, Effect, Event, GithubRunnerId, HostPhase, LaunchId, Outcome, Stage,
    Work,
};
use rstest::rstest;

/// More than the six minutes that a runner has to listen.
const LATE: i64 = 361;

/// A host that has enrolled for a job.
fn enrolled() -> (Tester, LaunchId) {
    let mut tester = Tester::new(vec![pool("linux")]);
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux")[0].clone();
    let instance = Tester::instance(&launch);
    tester.tell(Event::Launched {
        launch: launch.clone(),
        instance: instance.clone(),
        offering: None,
    });
    tester.tell(Event::Enrolled {
        launch: launch.clone(),
        instance,
    });
    tester.tell(Event::AgentConnected {
        launch: launch.clone(),
        phase: HostPhase::Unassigned,
        assignment: None,
        heard_at: at(tester.second),
    });
    (tester, launch)
}

fn registered(tester: &mut Tester, launch: &LaunchId) -> Changes {
    let name = tester.name(launch);
    tester.tell(Event::Minted {
        launch: launch.clone(),
        name,
        id: GithubRunnerId(7),
    })
}

/// One whose runner was registered, too, or also assigned.
fn starts(assigned: bool) -> (Tester, LaunchId) {
    let (mut tester, launch) = enrolled();
    registered(&mut tester, &launch);
    let name = tester.name(&launch);
    if assigned {
        tester.tell(Event::AssignmentAccepted {
            launch: launch.clone(),
            name,
        });
    }
    (tester, launch)
}

fn answered(tester: &mut Tester, launch: &LaunchId, answer: DeregisterAnswer) -> Changes {
    let name = tester.name(launch);
    tester.tell(Event::Deregistered {
        launch: launch.clone(),
        name,
        answer,
    })
}

fn count(changes: &Changes, wanted: impl Fn(&Effect) -> bool) -> usize {
    changes.effects.iter().filter(|&it| wanted(it)).count()
}

fn outcome(tester: &Tester, launch: &LaunchId) -> Option<Outcome> {
    match &tester.fleet.runner(launch).unwrap().work {
        Work::Over { outcome, .. } => *outcome,
        _ => None,
    }
}

fn terminates(effect: &Effect) -> bool {
    matches!(effect, Effect::Terminate { .. })
}

#[rstest]
fn one_that_has_a_job_at_github_keeps_it(#[values(false, true)] assigned: bool) {
    let (mut tester, launch) = starts(assigned);
    let changes = tester.pass(LATE);
    assert_eq!(count(&changes, terminates), 0, "{:?}", changes.effects);
    let deregisters = |effect: &Effect| matches!(effect, Effect::Deregister { .. });
    assert_eq!(count(&changes, deregisters), 1);
    assert_eq!(told(&changes), ["late"]);
    // While GitHub says nothing, nothing is done twice, and nothing is ended.
    assert!(tester.pass(60).effects.is_empty());
    let changes = answered(&mut tester, &launch, DeregisterAnswer::Busy);
    assert_eq!(told(&changes), ["deregistration refused", "busy"]);
    assert_eq!(count(&tester.pass(600), terminates), 0);
    assert_eq!(tester.fleet.runner(&launch).unwrap().stage(), Stage::Busy);
}

#[test]
fn one_without_a_job_ends_as_one_that_did_not_start() {
    let (mut tester, launch) = starts(true);
    tester.pass(LATE);
    // A job may have come the moment before: its host looks.
    let changes = answered(&mut tester, &launch, DeregisterAnswer::Deleted);
    let retires = |effect: &Effect| matches!(effect, Effect::Retire { .. });
    assert_eq!(
        (count(&changes, retires), count(&changes, terminates)),
        (1, 0)
    );
    assert_eq!(count(&tester.pass(20), terminates), 0);
    let changes = tester.tell(finished(&launch, Outcome::Unused));
    assert_eq!(count(&changes, terminates), 1);
    assert_eq!(outcome(&tester, &launch), Some(Outcome::StartFailed));
}

#[test]
fn one_whose_host_says_nothing_ends_half_a_minute_later() {
    let (mut tester, launch) = starts(true);
    tester.pass(LATE);
    answered(&mut tester, &launch, DeregisterAnswer::Absent);
    assert_eq!(count(&tester.pass(29), terminates), 0);
    let changes = tester.pass(1);
    assert_eq!(count(&changes, terminates), 1);
    let held_back = told(&changes).contains(&"launches held back");
    assert!(
        !held_back,
        "its pool was held back as it was found to be late"
    );
    assert_eq!(outcome(&tester, &launch), Some(Outcome::StartFailed));
}

#[test]
fn one_that_got_a_job_the_moment_before_keeps_it() {
    let (mut tester, launch) = starts(true);
    tester.pass(LATE);
    answered(&mut tester, &launch, DeregisterAnswer::Deleted);
    tester.phase(&launch, HostPhase::Running);
    assert_eq!(count(&tester.pass(600), terminates), 0);
}

#[test]
fn one_that_was_never_assigned_ends_once_its_registration_is_gone() {
    let (mut tester, launch) = starts(false);
    tester.pass(LATE);
    let changes = answered(&mut tester, &launch, DeregisterAnswer::Deleted);
    assert_eq!(count(&changes, terminates), 1);
    assert_eq!(outcome(&tester, &launch), Some(Outcome::StartFailed));
}

fn launches(effect: &Effect) -> bool {
    matches!(effect, Effect::Launch { .. })
}

/// Its limits may hold registrations up for an hour: another host would only wait behind this one.
#[test]
fn one_whose_registration_is_held_up_is_waited_for() {
    let (mut tester, launch) = enrolled();
    for minute in 0..60 {
        let changes = tester.pass(60);
        let (ends, more) = (count(&changes, terminates), count(&changes, launches));
        assert_eq!((ends, more), (0, 0), "after {minute} minutes");
    }
    registered(&mut tester, &launch);
    assert_eq!(told(&tester.pass(LATE - 2)), [""; 0]);
    assert_eq!(
        told(&tester.pass(1)),
        ["late"],
        "it has all its time after that"
    );
}

#[test]
fn one_whose_registration_is_held_up_ends_once_no_job_waits() {
    let (mut tester, launch) = enrolled();
    tester.pass(100);
    tester.tell(webhook(ended(1, "", "cancelled", 100)));
    assert_eq!(count(&tester.pass(LATE - 102), terminates), 0);
    assert_eq!(count(&tester.pass(1), terminates), 1);
    assert_eq!(outcome(&tester, &launch), None, "that is nobody's fault");
    // GitHub may have registered it the moment before.
    let changes = registered(&mut tester, &launch);
    let deregisters = |effect: &Effect| matches!(effect, Effect::Deregister { .. });
    assert_eq!(count(&changes, deregisters), 1);
}

/// When the next launch comes, in seconds after the one before it failed.
fn held_back(tester: &mut Tester, failed: &Changes) -> i64 {
    assert!(
        told(failed).contains(&"launches held back"),
        "{:?}",
        told(failed)
    );
    assert_eq!(count(failed, launches), 0);
    (1..1_000)
        .find(|_| count(&tester.pass(1), launches) > 0)
        .unwrap()
}

#[test]
fn hosts_that_never_come_up_hold_their_pool_back_longer_each_time() {
    let mut tester = Tester::new(vec![pool("linux")]);
    tester.tell(webhook(report(1)));
    let waits = [0; 3].map(|_| {
        let launch = tester.launches("linux").pop().unwrap();
        let instance = Tester::instance(&launch);
        tester.tell(Event::Launched {
            launch,
            instance,
            offering: None,
        });
        let failed = tester.pass(300);
        held_back(&mut tester, &failed)
    });
    assert!(
        waits[0] > 0 && waits[0] < waits[1] && waits[1] < waits[2],
        "{waits:?}"
    );
}

#[rstest]
#[case::unassigned(false)]
#[case::asked_by_us(true)]
fn one_that_does_not_listen_holds_its_pool_back(#[case] assigned: bool) {
    let (mut tester, launch) = starts(assigned);
    tester.pass(LATE);
    let failed = answered(&mut tester, &launch, DeregisterAnswer::Deleted);
    assert!(held_back(&mut tester, &failed) > 0);
    if assigned {
        let ended = tester.tell(finished(&launch, Outcome::Unused));
        assert_eq!(told(&ended), ["ended"], "once for each");
    }
}
