use super::*;
use crate::event::Event;
use crate::fixtures::{at, pool, report};
use crate::fleet::{FleetSpec, Stored};

/// A fleet with one launch.
fn launched() -> (Fleet, LaunchId) {
    let spec = FleetSpec {
        pools: vec![pool("linux")],
        accounts: [("local".into(), 9)].into(),
    };
    let mut fleet = Fleet::restore(spec, Stored::default(), 1);
    fleet.apply(Event::Job(Box::new(report(1))), at(0));
    let launch = fleet.runners().next().unwrap().launch.clone();
    (fleet, launch)
}

fn told(fleet: &mut Fleet, event: Event) -> Vec<(String, String)> {
    let entries = fleet.apply(event, at(1)).timeline.into_iter();
    entries.map(|entry| (entry.what, entry.detail)).collect()
}

fn troubled(launch: &LaunchId, kind: Trouble) -> Event {
    Event::Troubled {
        launch: launch.clone(),
        kind,
        detail: "812 MiB are left".into(),
    }
}

#[test]
fn a_warning_is_told_and_counted_and_decides_nothing() {
    let (mut fleet, launch) = launched();
    let changes = fleet.apply(troubled(&launch, Trouble::Disk), at(1));
    assert_eq!(changes.troubles, [Trouble::Disk]);
    assert_eq!(changes.effects, []);
    let entry = &changes.timeline[0];
    assert_eq!(
        (entry.what.as_str(), entry.detail.as_str()),
        ("disk low", "812 MiB are left")
    );
    assert_eq!(entry.launch.as_ref(), Some(&launch));
}

#[test]
fn the_warnings_of_one_agent_are_kept_up_to_a_number() {
    let (mut fleet, launch) = launched();
    let mut entries = Vec::new();
    for _ in 0..WARNINGS_MAX + 50 {
        entries.extend(told(&mut fleet, troubled(&launch, Trouble::Memory)));
    }
    let (last, kept) = entries.split_last().unwrap();
    assert_eq!(kept.len(), WARNINGS_MAX as usize);
    assert_eq!(last.0, "warnings left out");
}

#[test]
fn an_unknown_or_ended_launch_has_no_warnings() {
    let (mut fleet, launch) = launched();
    let unknown = fleet.apply(troubled(&"nobody".into(), Trouble::Disk), at(1));
    assert_eq!(unknown.refused.len(), 1);
    let reason = "test".to_owned();
    fleet.apply(
        Event::OperatorTerminate {
            launch: launch.clone(),
            reason,
        },
        at(1),
    );
    assert_eq!(told(&mut fleet, troubled(&launch, Trouble::Disk)), []);
}

fn distrusted(launch: &LaunchId) -> Event {
    Event::Distrusted {
        launch: launch.clone(),
        reason: "a second enrolment".into(),
    }
}

#[test]
fn a_distrusted_host_is_ended_once_and_its_pool_goes_on() {
    let (mut fleet, launch) = launched();
    let instance = crate::ids::InstanceId::from("i-0123456789abcdef0");
    let enrolled = Event::Enrolled {
        launch: launch.clone(),
        instance: instance.clone(),
    };
    fleet.apply(enrolled.clone(), at(1));
    let changes = fleet.apply(distrusted(&launch), at(1));
    let told: Vec<_> = changes
        .timeline
        .iter()
        .map(|entry| (entry.what.as_str(), entry.detail.as_str()))
        .take(2)
        .collect();
    assert_eq!(
        told,
        [
            ("distrusted", "a second enrolment"),
            ("ended", "not trusted any more: a second enrolment"),
        ]
    );
    let end = Effect::Terminate {
        launch: launch.clone(),
        account: "local".into(),
        instance,
        at_once: true,
    };
    assert!(changes.effects.contains(&end), "{:?}", changes.effects);
    // The job that waits gets another host at once.
    let again =
        |effect: &Effect| matches!(effect, Effect::Launch { launch: new, .. } if *new != launch);
    assert!(changes.effects.iter().any(again), "{:?}", changes.effects);
    let state = fleet.pool_state(&"linux".into());
    assert_eq!((state.failures, state.closed_until), (0, None));

    assert_eq!(self::told(&mut fleet, distrusted(&launch)), []);
    fleet.apply(enrolled, at(2));
    assert!(fleet.runner(&launch).unwrap().is_over());
}

#[test]
fn a_distrusted_launch_that_is_unknown_changes_nothing() {
    let (mut fleet, _) = launched();
    let changes = fleet.apply(distrusted(&"nobody".into()), at(1));
    assert_eq!(changes.refused.len(), 1);
    assert_eq!(changes.effects, []);
}

#[test]
fn an_instance_is_found_in_its_own_account_only() {
    let (mut fleet, launch) = launched();
    let instance = crate::ids::InstanceId::from("i-0123456789abcdef0");
    let launched = Event::Launched {
        launch: launch.clone(),
        instance: instance.clone(),
        offering: None,
    };
    fleet.apply(launched, at(1));
    let found = fleet.runner_of(&"local".into(), &instance);
    assert_eq!(found.map(|runner| &runner.launch), Some(&launch));
    assert_eq!(fleet.runner_of(&"another".into(), &instance), None);
}

#[test]
fn a_notice_is_told_with_the_words_of_its_source() {
    let (mut fleet, launch) = launched();
    let notice = Event::Interrupted {
        launch,
        kind: Interruption::Lifecycle,
        deadline: None,
        detail: "target state is Terminated".into(),
    };
    let entries = told(&mut fleet, notice);
    assert_eq!(entries[0].0, "interruption notice");
    assert_eq!(
        entries[0].1,
        "Auto Scaling takes the instance away: target state is Terminated"
    );
    let reason = &entries[1];
    assert_eq!(reason.1, "Auto Scaling takes the instance away");
}

#[test]
fn what_an_agent_says_again_changes_nothing() {
    let (mut fleet, launch) = launched();
    let said = |sequence| Event::Said {
        launch: launch.clone(),
        sequence,
        heard_at: at(0),
        event: Box::new(troubled(&launch, Trouble::Disk)),
    };
    assert_eq!(told(&mut fleet, said(1)).len(), 1);
    // The process was killed before its answer was out, and the agent says it to the next one.
    let stored = Stored {
        runners: fleet.runners().cloned().collect(),
        ..Stored::default()
    };
    let mut fleet = Fleet::restore(fleet.spec.clone(), stored, 2);
    let again = fleet.apply(said(1), at(1));
    assert_eq!((again.timeline.len(), again.refused.len()), (0, 1));
    assert_eq!(told(&mut fleet, said(2)).len(), 1);
    let launch = launch.clone();
    fleet.apply(Event::CountsAnew { launch }, at(1));
    assert_eq!(told(&mut fleet, said(1)).len(), 1, "another warning");
}

/// Whoever has an agent's certificate may say so without end, and each time a provider is asked.
#[test]
fn the_notices_of_one_agent_close_an_offering_up_to_a_number_of_times() {
    let (mut fleet, launch) = launched();
    let offering = crate::offering::Offering {
        market: crate::matching::Market::Spot,
        instance_type: "m7i.large".to_owned(),
        zone: "eu-west-1a".to_owned(),
    };
    let launched = Event::Launched {
        launch: launch.clone(),
        instance: crate::ids::InstanceId::from("i-0123456789abcdef0"),
        offering: Some(offering),
    };
    fleet.apply(launched, at(1));
    let running = Event::PhaseChanged {
        launch: launch.clone(),
        phase: HostPhase::Running,
        job_name: None,
    };
    let name = fleet.runner(&launch).unwrap().name.clone();
    let minted = Event::Minted {
        launch: launch.clone(),
        name,
        id: crate::ids::GithubRunnerId(7),
    };
    let connected = Event::AgentConnected {
        launch: launch.clone(),
        phase: HostPhase::Unassigned,
        assignment: None,
        heard_at: at(1),
    };
    let enrolled = Event::Enrolled {
        launch: launch.clone(),
        instance: crate::ids::InstanceId::from("i-0123456789abcdef0"),
    };
    for event in [enrolled, connected, minted, running] {
        fleet.apply(event, at(1));
    }
    assert_eq!(fleet.runner(&launch).unwrap().work, Work::Busy);
    let mut closed = 0;
    for _ in 0..WARNINGS_MAX + 50 {
        let notice = Event::Interrupted {
            launch: launch.clone(),
            kind: Interruption::Rebalance,
            deadline: None,
            detail: String::new(),
        };
        let effects = fleet.apply(notice, at(1)).effects;
        let close = |effect: &&Effect| matches!(effect, Effect::CloseOffering { .. });
        closed += effects.iter().filter(close).count();
    }
    assert_eq!(closed, WARNINGS_MAX as usize);
}
