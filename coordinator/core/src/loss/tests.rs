use std::time::Duration;

use super::*;
use crate::event::{Event, HostPhase, Interruption, LaunchFailure};
use crate::fixtures::{at, pool, report};
use crate::fleet::{Fleet, FleetSpec, Stored};
use crate::ids::{InstanceId, LaunchId};
use crate::listed::{Marked, Origin};

fn fleet() -> Fleet {
    let spec = FleetSpec {
        pools: vec![pool("linux")],
        accounts: [("local".into(), 9)].into(),
    };
    Fleet::restore(spec, Stored::default(), 1)
}

fn instance() -> InstanceId {
    InstanceId::from("i-0123456789abcdef0")
}

/// A fleet with one host that boots.
fn booting() -> (Fleet, LaunchId) {
    let mut fleet = fleet();
    fleet.apply(Event::Job(Box::new(report(1))), at(0));
    let launch = fleet.runners().next().unwrap().launch.clone();
    let launched = Event::Launched {
        launch: launch.clone(),
        instance: instance(),
        offering: None,
    };
    fleet.apply(launched, at(1));
    (fleet, launch)
}

/// A fleet with one host that may have a job, whose agent has not come yet.
fn found() -> (Fleet, LaunchId) {
    let mut fleet = fleet();
    let launch = LaunchId::from("found");
    let origin = Origin {
        pool: "linux".into(),
        since: at(0),
        offering: None,
    };
    let listed = Event::InstancesListed {
        account: "local".into(),
        absence: Duration::from_secs(900),
        alive: vec![Marked {
            instance: instance(),
            launch: Some(launch.clone()),
            origin: Some(origin),
        }],
        gone: Vec::new(),
    };
    fleet.apply(listed, at(1));
    (fleet, launch)
}

/// As [`found`], with an agent that has come back with an assignment.
fn at_work() -> (Fleet, LaunchId) {
    let (mut fleet, launch) = found();
    assert_eq!(losses(&mut fleet, hello(&launch, "muster-linux-1"), 2), []);
    (fleet, launch)
}

fn hello(launch: &LaunchId, assignment: &str) -> Event {
    Event::AgentConnected {
        launch: launch.clone(),
        phase: HostPhase::Running,
        assignment: Some(assignment.into()),
        heard_at: at(0),
    }
}

fn gone(launch: &LaunchId) -> Event {
    Event::InstanceGone {
        launch: launch.clone(),
        instance: instance(),
    }
}

fn losses(fleet: &mut Fleet, event: Event, second: i64) -> Vec<Loss> {
    fleet.apply(event, at(second)).losses
}

#[test]
fn a_host_that_does_not_get_ready_is_lost_however_it_ends() {
    let (mut fleet, launch) = booting();
    assert_eq!(losses(&mut fleet, gone(&launch), 9), [Loss::Unready]);
    assert_eq!(losses(&mut fleet, gone(&launch), 10), [], "it ends once");
    let (mut fleet, _) = booting();
    assert_eq!(losses(&mut fleet, Event::Tick, 900), [Loss::Unready]);
}

#[test]
fn a_host_that_goes_by_itself_is_another_loss_than_one_that_is_taken() {
    let (mut fleet, launch) = at_work();
    assert_eq!(losses(&mut fleet, gone(&launch), 9), [Loss::Gone]);

    let (mut fleet, launch) = at_work();
    let notice = Event::Interrupted {
        launch: launch.clone(),
        kind: Interruption::Spot,
        deadline: Some(at(120)),
        detail: String::new(),
    };
    assert_eq!(losses(&mut fleet, notice, 9), []);
    assert_eq!(losses(&mut fleet, gone(&launch), 100), [Loss::Taken]);
}

#[test]
fn a_host_whose_agent_does_not_come_back_is_silent() {
    let (mut fleet, launch) = at_work();
    let lost = Event::AgentLost {
        launch,
        heard_at: at(9),
    };
    assert_eq!(losses(&mut fleet, lost, 9), []);
    assert_eq!(losses(&mut fleet, Event::Tick, 900), [Loss::Silent]);
    let (mut fleet, _) = found();
    assert_eq!(losses(&mut fleet, Event::Tick, 900), [Loss::Silent]);
}

#[test]
fn a_host_that_outlives_a_limit_or_says_what_can_not_be_is_stuck() {
    let (mut fleet, _) = at_work();
    assert_eq!(losses(&mut fleet, Event::Tick, 30 * 86_400), [Loss::Stuck]);
    let (mut fleet, launch) = found();
    let claim = hello(&launch, "somebody-else");
    assert_eq!(losses(&mut fleet, claim, 9), [Loss::Stuck]);
}

#[test]
fn what_ends_as_it_should_or_was_never_there_is_no_loss() {
    let (mut fleet, launch) = at_work();
    let finished = Event::Finished {
        launch: launch.clone(),
        outcome: Outcome::Failed,
        reason: "exit 2".to_owned(),
    };
    assert_eq!(losses(&mut fleet, finished, 9), []);
    assert_eq!(losses(&mut fleet, gone(&launch), 10), []);
    let mut fleet = self::fleet();
    fleet.apply(Event::Job(Box::new(report(1))), at(0));
    let launch = fleet.runners().next().unwrap().launch.clone();
    let failed = Event::LaunchFailed {
        launch,
        failure: LaunchFailure::Capacity,
        detail: "none".to_owned(),
    };
    assert_eq!(losses(&mut fleet, failed, 1), []);
}
