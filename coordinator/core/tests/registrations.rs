//! What GitHub's list of runners says, against the ledger.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{Tester, at, finished, pool, report, running, webhook};
use muster_core::{
    Changes, Difference, Effect, Event, GithubRunnerId, LaunchId, Outcome, Registered,
    Registration, RunnerName, Scope,
};

fn tester() -> Tester {
    Tester::new(vec![pool("linux")])
}

fn scope() -> Scope {
    pool("linux").scope
}

fn listed(launch: &LaunchId, name: &RunnerName, busy: bool) -> Event {
    let listed = vec![Registered {
        name: name.clone(),
        id: GithubRunnerId(7),
        launch: launch.clone(),
        busy,
    }];
    Event::RunnersListed {
        scope: scope(),
        listed,
    }
}

fn deletes(changes: &Changes) -> usize {
    let delete = |effect: &&Effect| matches!(effect, Effect::Deregister { .. });
    changes.effects.iter().filter(delete).count()
}

#[test]
fn a_registration_whose_launch_is_over_is_deleted_after_a_grace() {
    let mut tester = tester();
    let (launch, name) = running(&mut tester, 1);
    assert_eq!(
        deletes(&tester.tell(listed(&launch, &name, false))),
        0,
        "it lives"
    );
    tester.tell(finished(&launch, Outcome::Succeeded));
    tester.second += 300;
    assert_eq!(
        deletes(&tester.tell(listed(&launch, &name, false))),
        0,
        "it is being deleted"
    );
    tester.tell(Event::Deregistered {
        launch: launch.clone(),
        name: name.clone(),
        answer: muster_core::DeregisterAnswer::Absent,
    });
    assert_eq!(
        deletes(&tester.tell(listed(&launch, &name, false))),
        0,
        "one list may lag"
    );
    tester.second += 120;
    assert_eq!(
        deletes(&tester.tell(listed(&launch, &name, true))),
        0,
        "it has a job"
    );
    assert_eq!(deletes(&tester.tell(listed(&launch, &name, false))), 0);
    tester.second += 120;
    let changes = tester.tell(listed(&launch, &name, false));
    assert_eq!(deletes(&changes), 1);
    assert_eq!(changes.differences, [Difference::LeftRunner]);
    let forgotten = LaunchId::from("long-ago");
    let old = RunnerName::from("muster-linux-long-ago");
    tester.tell(listed(&forgotten, &old, false));
    tester.second += 120;
    assert_eq!(deletes(&tester.tell(listed(&forgotten, &old, false))), 1);
}

#[test]
fn it_is_known_since_when_a_runner_is_registered() {
    let mut tester = tester();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").remove(0);
    tester.tell(Event::Enrolled {
        launch: launch.clone(),
        instance: Tester::instance(&launch),
    });
    // GitHub can't be reached for a while.
    tester.second = 300;
    tester.listens(&launch);
    let marks = &tester.fleet.runner(&launch).unwrap().marks;
    assert_eq!(marks.enrolled_at, Some(at(0)));
    assert_eq!(marks.registered_at, Some(at(300)));
}

#[test]
fn a_registration_that_is_missing_retires_its_idle_host_and_spares_a_busy_one() {
    let mut tester = tester();
    let (busy, busy_name) = running(&mut tester, 1);
    let missing = |launch: &LaunchId, name: &RunnerName| Event::RunnerMissing {
        launch: launch.clone(),
        name: name.clone(),
    };
    let changes = tester.tell(missing(&busy, &busy_name));
    assert_eq!((changes.effects.len(), changes.differences.len()), (0, 1));
    tester.tell(webhook(report(2)));
    let idle = tester.launches("linux").pop().unwrap();
    let name = tester.listens(&idle);
    let changes = tester.tell(missing(&idle, &name));
    assert!(
        changes
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Retire { .. }))
    );
    let runner = tester.fleet.runner(&idle).unwrap();
    assert_eq!(runner.registration, Registration::Gone);
    assert!(tester.tell(missing(&idle, &name)).is_empty());
}
