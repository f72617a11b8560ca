//! A pool's second image: its share of the launches, what counts against it, and its end.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use muster_core::{
    CanaryRules, CanaryStanding, Changes, Effect, Event, Fleet, ImageId, Interruption, JobId,
    LaunchFailure, LaunchId, Outcome, PoolSpec, Stored, Tally, Trial,
};
use rstest::rstest;

use self::kit::{Tester, at, finished, gone, pool, report, told, webhook};

const RULES: CanaryRules = CanaryRules {
    share: 50,
    least: 2,
    margin: 10,
};

fn spec(canary: Option<CanaryRules>) -> PoolSpec {
    PoolSpec {
        max: 20,
        canary,
        ..pool("linux")
    }
}

fn known(own: &str, canary: &str) -> Event {
    Event::ImagesKnown {
        pool: "linux".into(),
        own: Some(own.into()),
        canary: Some(canary.into()),
    }
}

/// A fleet whose canary is known.
fn on_trial(rules: CanaryRules) -> Tester {
    let mut tester = Tester::new(vec![spec(Some(rules))]);
    assert_eq!(
        told(&tester.tell(known("ami-old", "ami-new"))),
        ["canary begun"]
    );
    tester
}

/// The image of each launch; none for the pool's own.
fn images(changes: &Changes) -> Vec<Option<ImageId>> {
    let image = |effect: &Effect| match effect {
        Effect::Launch { image, .. } => Some(image.clone()),
        _ => None,
    };
    changes.effects.iter().filter_map(image).collect()
}

fn trial(tester: &Tester) -> Trial {
    tester.fleet.pool_state(&"linux".into()).trial.unwrap()
}

fn tallies(tester: &Tester) -> [(u32, u32, u32); 2] {
    let told = |tally: Tally| (tally.launches, tally.good, tally.failed);
    [told(trial(tester).canary), told(trial(tester).own)]
}

/// Queues a job, whose launch is made; gives the launch.
fn launch(tester: &mut Tester, id: i64) -> LaunchId {
    let changes = tester.tell(webhook(report(id)));
    let launch = changes.effects.iter().find_map(|effect| match effect {
        Effect::Launch { launch, .. } => Some(launch.clone()),
        _ => None,
    });
    let launch = launch.unwrap();
    tester.tell(Event::Launched {
        launch: launch.clone(),
        instance: Tester::instance(&launch),
        offering: None,
    });
    launch
}

/// A launch from the canary: every second one.
fn canary(tester: &mut Tester) -> LaunchId {
    let own = launch(tester, 1);
    let canary = launch(tester, 2);
    let is_canary = |launch| tester.fleet.runner(launch).unwrap().is_canary();
    assert!(!is_canary(&own) && is_canary(&canary));
    canary
}

#[test]
fn the_share_is_counted_across_launches_and_restarts() {
    let rules = CanaryRules { share: 20, ..RULES };
    let mut tester = on_trial(rules);
    let mut all = Vec::new();
    for id in 1..=7 {
        all.extend(images(&tester.tell(webhook(report(id)))));
    }
    let stored = Stored {
        jobs: tester.fleet.jobs().cloned().collect(),
        runners: tester.fleet.runners().cloned().collect(),
        pools: [("linux".into(), tester.fleet.pool_state(&"linux".into()))].into(),
        ..Stored::default()
    };
    tester.fleet = Fleet::restore(tester.spec.clone(), stored, 2);
    tester.tell(Event::Restarted);
    // The images are told again at each start: until then nobody knows whether it is the canary still.
    for id in 101..=104 {
        assert_eq!(images(&tester.tell(webhook(report(id)))), [None]);
    }
    assert!(tester.tell(known("ami-old", "ami-new")).is_empty());
    for id in 8..=16 {
        all.extend(images(&tester.tell(webhook(report(id)))));
    }
    let taken: Vec<usize> = (1..)
        .zip(&all)
        .filter(|(_, it)| it.is_some())
        .map(|(n, _)| n)
        .collect();
    assert_eq!((all.len(), taken), (16, vec![5, 10, 15]));
    assert_eq!(tallies(&tester), [(3, 0, 0), (13, 0, 0)]);
}

#[test]
fn a_canary_that_nothing_names_any_more_takes_no_launch_until_it_is_named_again() {
    let mut tester = on_trial(RULES);
    let gone = || Event::ImagesKnown {
        pool: "linux".into(),
        own: Some("ami-old".into()),
        canary: None,
    };
    assert_eq!(images(&tester.tell(webhook(report(1)))), [None]);
    let changes = tester.tell(webhook(report(2)));
    assert_eq!(images(&changes), [Some("ami-new".into())]);
    // Its launch has no instance yet: it is taken back.
    let changes = tester.tell(gone());
    assert_eq!(told(&changes)[0], "canary withdrawn");
    let withdrawn = |effect: &Effect| matches!(effect, Effect::Withdraw { .. });
    assert!(
        changes.effects.iter().any(withdrawn),
        "{:?}",
        changes.effects
    );
    assert!(tester.tell(gone()).is_empty());
    for id in 3..=6 {
        assert_eq!(images(&tester.tell(webhook(report(id)))), [None]);
    }
    assert_eq!(tallies(&tester)[0], (1, 0, 0), "what was counted is kept");
    tester.tell(known("ami-old", "ami-new"));
    assert_eq!(images(&tester.tell(webhook(report(7)))), [None]);
    let changes = tester.tell(webhook(report(8)));
    assert_eq!(images(&changes), [Some("ami-new".into())]);
}

#[test]
fn no_launch_takes_an_image_that_is_not_known() {
    let mut tester = Tester::new(vec![spec(Some(RULES)), spec_named("big")]);
    for id in 1..=4 {
        assert_eq!(images(&tester.tell(webhook(report(id)))), [None]);
    }
    let other = Event::ImagesKnown {
        pool: "big".into(),
        own: None,
        canary: Some("ami-new".into()),
    };
    assert_eq!(tester.tell(other).refused.len(), 1, "it has no canary");
}

fn spec_named(name: &str) -> PoolSpec {
    PoolSpec {
        labels: ["self-hosted".to_owned(), name.to_owned()].into(),
        ..pool(name)
    }
}

#[test]
fn a_canary_whose_hosts_never_enrol_is_stopped_and_stays_so() {
    let mut tester = on_trial(RULES);
    let launches: Vec<LaunchId> = (1..=4).map(|id| launch(&mut tester, id)).collect();
    for own in [&launches[0], &launches[2]] {
        tester.listens(own);
    }
    assert_eq!(tallies(&tester), [(2, 0, 0), (2, 2, 0)]);
    // The limit of their boot. What replaces them is launched in the same turn.
    let changes = tester.pass(301);
    assert_eq!(changes.stopped_canaries, ["linux".into()]);
    let entry = changes
        .timeline
        .iter()
        .find(|it| it.what == "canary stopped");
    assert_eq!(
        entry.unwrap().detail,
        "2 of 2 launches of ami-new failed, and 0 of 2 of the pool's own image: more than 10 in 100 more"
    );
    assert_eq!(images(&changes), [None, None]);
    assert_eq!(trial(&tester).stopped.unwrap().at, at(301));

    let stored = Stored {
        pools: [("linux".into(), tester.fleet.pool_state(&"linux".into()))].into(),
        ..Stored::default()
    };
    tester.fleet = Fleet::restore(tester.spec.clone(), stored, 2);
    tester.tell(Event::Restarted);
    tester.tell(known("ami-old", "ami-new"));
    let figures = tester.fleet.figures(&"linux".into(), at(302));
    assert_eq!(figures.canary, CanaryStanding::Stopped);
    for id in 11..=14 {
        assert_eq!(images(&tester.tell(webhook(report(id)))), [None]);
    }

    assert_eq!(
        told(&tester.tell(known("ami-old", "ami-newer"))),
        ["canary begun"]
    );
    assert_eq!(tallies(&tester), [(0, 0, 0), (0, 0, 0)]);
    let figures = tester.fleet.figures(&"linux".into(), at(302));
    assert_eq!(figures.canary, CanaryStanding::OnTrial);
    tester.tell(webhook(report(15)));
    let changes = tester.tell(webhook(report(16)));
    assert_eq!(images(&changes), [Some("ami-newer".into())]);
}

#[test]
fn launches_of_a_stopped_canary_that_have_no_instance_are_taken_back() {
    let mut tester = on_trial(RULES);
    let launches: Vec<LaunchId> = (1..=4).map(|id| launch(&mut tester, id)).collect();
    for own in [&launches[0], &launches[2]] {
        tester.listens(own);
    }
    tester.tell(webhook(report(5)));
    let mut waits = Vec::new();
    for id in 6..=9 {
        waits.extend(
            images(&tester.tell(webhook(report(id))))
                .into_iter()
                .flatten(),
        );
    }
    assert_eq!(waits, ["ami-new".into(), "ami-new".into()]);
    let changes = tester.pass(301);
    assert_eq!(changes.stopped_canaries, ["linux".into()]);
    let is_canary = |launch| tester.fleet.runner(launch).unwrap().is_canary();
    let withdrawn = changes.effects.iter().filter_map(|effect| match effect {
        Effect::Withdraw { launch, .. } => Some(is_canary(launch)),
        _ => None,
    });
    assert_eq!(withdrawn.collect::<Vec<_>>(), [true, true]);
}

#[test]
fn as_many_failures_of_both_images_are_not_the_canarys() {
    let mut tester = on_trial(RULES);
    let launches: Vec<LaunchId> = (1..=8).map(|id| launch(&mut tester, id)).collect();
    // The pool waits after a failure of its own image, and for no longer than that.
    for launch in &launches {
        tester.tell(gone(launch));
    }
    assert_eq!(tallies(&tester)[0].2, 4);
    assert_eq!(tallies(&tester)[1].2, 4);
    assert_eq!(trial(&tester).stopped, None);
}

/// What becomes of a host from the canary, and what it counts as.
#[rstest]
#[case::never_enrolled(|it: &mut Tester, launch: &LaunchId| { it.tell(gone(launch)); }, (0, 1))]
#[case::runner_did_not_start(|it: &mut Tester, launch: &LaunchId| {
    it.tell(Event::Enrolled { launch: launch.clone(), instance: Tester::instance(launch) });
    let name = it.name(launch);
    it.tell(Event::AgentConnected { launch: launch.clone(), phase: muster_core::HostPhase::Unassigned, assignment: None, heard_at: at(it.second) });
    it.tell(Event::Minted { launch: launch.clone(), name, id: muster_core::GithubRunnerId(9) });
    it.tell(finished(launch, Outcome::StartFailed));
}, (0, 1))]
#[case::github_refused(|it: &mut Tester, launch: &LaunchId| {
    it.tell(Event::Enrolled { launch: launch.clone(), instance: Tester::instance(launch) });
    let name = it.name(launch);
    it.tell(Event::AgentConnected { launch: launch.clone(), phase: muster_core::HostPhase::Unassigned, assignment: None, heard_at: at(it.second) });
    it.tell(Event::MintFailed { launch: launch.clone(), name, failure: muster_core::MintFailure::Refused, detail: "no".into() });
}, (0, 0))]
#[case::no_capacity(|it: &mut Tester, launch: &LaunchId| {
    let changes = it.tell(Event::LaunchFailed { launch: launch.clone(), failure: LaunchFailure::Capacity, detail: "none".into() });
    assert_eq!(changes.refused.len(), 1, "it was launched");
}, (0, 0))]
#[case::version_refused(|it: &mut Tester, launch: &LaunchId| {
    it.listens(launch);
    it.tell(finished(launch, Outcome::VersionRefused));
}, (0, 1))]
#[case::listens(|it: &mut Tester, launch: &LaunchId| { it.listens(launch); }, (1, 0))]
#[case::its_job_failed(|it: &mut Tester, launch: &LaunchId| {
    it.listens(launch);
    it.phase(launch, muster_core::HostPhase::Running);
    it.tell(finished(launch, Outcome::Failed));
}, (1, 0))]
#[case::its_job_left_the_runner_dead(|it: &mut Tester, launch: &LaunchId| {
    it.listens(launch);
    it.phase(launch, muster_core::HostPhase::Running);
    it.tell(finished(launch, Outcome::Lost));
}, (1, 0))]
#[case::lost_in_its_job(|it: &mut Tester, launch: &LaunchId| {
    it.listens(launch);
    it.phase(launch, muster_core::HostPhase::Running);
    it.tell(gone(launch));
}, (0, 1))]
#[case::lost_while_idle(|it: &mut Tester, launch: &LaunchId| {
    it.listens(launch);
    it.tell(gone(launch));
}, (0, 1))]
#[case::taken_back(|it: &mut Tester, launch: &LaunchId| {
    it.listens(launch);
    it.phase(launch, muster_core::HostPhase::Running);
    it.tell(Event::Interrupted { launch: launch.clone(), kind: Interruption::Spot, deadline: None, detail: String::new() });
    it.tell(gone(launch));
}, (1, 0))]
#[case::taken_back_before_it_enrolled(|it: &mut Tester, launch: &LaunchId| {
    it.tell(Event::Interrupted { launch: launch.clone(), kind: Interruption::Spot, deadline: None, detail: String::new() });
    it.tell(gone(launch));
}, (0, 0))]
#[case::ended_by_an_operator(|it: &mut Tester, launch: &LaunchId| {
    it.tell(Event::OperatorTerminate { launch: launch.clone(), reason: "test".into() });
}, (0, 0))]
#[case::never_enrolled_and_told_twice(|it: &mut Tester, launch: &LaunchId| {
    it.tell(gone(launch));
    it.tell(gone(launch));
    it.pass(600);
}, (0, 1))]
fn what_a_host_says_of_its_image(
    #[case] life: impl Fn(&mut Tester, &LaunchId),
    #[case] expected: (u32, u32),
) {
    let mut tester = on_trial(CanaryRules { least: 9, ..RULES });
    let launch = canary(&mut tester);
    life(&mut tester, &launch);
    let tally = trial(&tester).canary;
    assert_eq!(
        (tally.good, tally.failed),
        expected,
        "{:?}",
        tester.fleet.runner(&launch)
    );
}

#[test]
fn a_canary_that_cant_be_launched_does_not_hold_back_the_pool() {
    let mut tester = on_trial(RULES);
    tester.tell(webhook(report(1)));
    let changes = tester.tell(webhook(report(2)));
    let Effect::Launch { launch, image, .. } = &changes.effects[0] else {
        panic!("{changes:?}");
    };
    assert_eq!(*image, Some("ami-new".into()));
    let failed = Event::LaunchFailed {
        launch: launch.clone(),
        failure: LaunchFailure::Permanent,
        detail: "InvalidAMIID.NotFound".into(),
    };
    let changes = tester.tell(failed);
    assert_eq!(
        images(&changes),
        [None],
        "the pool's own image follows at once"
    );
    assert_eq!(tallies(&tester)[0], (1, 0, 1));
    assert_eq!(tester.fleet.pool_state(&"linux".into()).closed_until, None);
    assert_eq!(tester.job(2).id(), JobId(2));
}

#[test]
fn a_canary_that_becomes_the_pools_own_image_is_none_any_more() {
    let mut tester = on_trial(RULES);
    let early = canary(&mut tester);
    assert_eq!(
        told(&tester.tell(known("ami-new", "ami-new"))),
        ["canary adopted"]
    );
    assert_eq!(tester.fleet.pool_state(&"linux".into()).trial, None);
    assert!(tester.tell(known("ami-new", "ami-new")).is_empty());
    for id in 3..=6 {
        assert_eq!(images(&tester.tell(webhook(report(id)))), [None]);
    }
    // What was launched from it is judged no more.
    tester.tell(gone(&early));
    assert_eq!(
        told(&tester.tell(known("ami-new", "ami-next"))),
        ["canary begun"]
    );
    assert_eq!(tallies(&tester), [(0, 0, 0), (0, 0, 0)]);
}

#[test]
fn another_image_of_the_pools_own_is_measured_anew() {
    let mut tester = on_trial(CanaryRules { least: 9, ..RULES });
    let old = launch(&mut tester, 1);
    let canary = launch(&mut tester, 2);
    tester.tell(known("ami-old-2", "ami-new"));
    tester.listens(&old);
    tester.listens(&canary);
    assert_eq!(tallies(&tester), [(1, 1, 0), (0, 0, 0)]);
    launch(&mut tester, 3);
    assert_eq!(tallies(&tester), [(1, 1, 0), (1, 0, 0)]);
}

#[test]
fn a_pool_that_is_configured_without_a_canary_forgets_it() {
    let mut tester = on_trial(RULES);
    canary(&mut tester);
    let stored = Stored {
        jobs: tester.fleet.jobs().cloned().collect(),
        runners: tester.fleet.runners().cloned().collect(),
        pools: [("linux".into(), tester.fleet.pool_state(&"linux".into()))].into(),
        ..Stored::default()
    };
    tester.spec.pools = vec![spec(None)];
    tester.fleet = Fleet::restore(tester.spec.clone(), stored, 2);
    let changes = tester.tell(Event::Restarted);
    assert!(told(&changes).contains(&"canary ended"), "{changes:?}");
    assert_eq!(tester.fleet.pool_state(&"linux".into()).trial, None);
    assert!(changes.pools.contains(&"linux".into()));
}
