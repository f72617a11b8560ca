//! Runners that aren't known to listen in time: they may have a job all the same, and only GitHub can tell.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{Tester, at, finished, pool, report, told, webhook};
use muster_core::{
    Changes, DeregisterAnswer, Effect, Event, GithubRunnerId, HostPhase, LaunchId, Outcome, Stage,
    Work,
};
use rstest::rstest;

/// More than the six minutes that a runner has to listen.
const LATE: i64 = 361;

/// A host that has enrolled, and whose runner was registered, or also assigned.
fn starts(assigned: bool) -> (Tester, LaunchId) {
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
    let name = tester.name(&launch);
    tester.tell(Event::Minted {
        launch: launch.clone(),
        name: name.clone(),
        id: GithubRunnerId(7),
    });
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
    assert_eq!(count(&tester.pass(1), terminates), 1);
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
