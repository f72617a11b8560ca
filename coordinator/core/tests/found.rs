//! A ledger that was lost: instances of ours without a row, and their agents.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use std::time::Duration;

use kit::{
    Tester, at, ended, finished, launched, look, pool, report, restart, started, told, webhook,
};
use muster_core::{
    Changes, DeregisterAnswer, Effect, Event, GithubRunnerId, HostPhase, JobId, LaunchId, Marked,
    MintFailure, Origin, Outcome, PoolSpec, Registered, Registration, RunnerName, Stage,
};
use rstest::rstest;

const INSTANCE: &str = "i-0123456789abcdef0";
const NAME: &str = "muster-linux-abcdefghijkl";

fn marked(instance: &str, pool: &str) -> Marked {
    Marked {
        instance: instance.into(),
        launch: None,
        origin: Some(Origin {
            pool: pool.into(),
            since: at(-600),
            offering: None,
        }),
    }
}

fn listing(alive: Vec<Marked>) -> Event {
    Event::InstancesListed {
        account: "local".into(),
        absence: Duration::ZERO,
        alive,
        gone: Vec::new(),
    }
}

/// A fleet that starts with nothing but these pools.
fn empty(pools: Vec<PoolSpec>) -> Tester {
    let mut tester = Tester::new(pools);
    tester.fleet.list_first();
    tester.tell(Event::Restarted);
    tester
}

/// One whose first listing has an instance that it knows nothing of.
fn with_found() -> (Tester, LaunchId) {
    let mut tester = empty(vec![pool("linux")]);
    tester.tell(listing(vec![marked(INSTANCE, "linux")]));
    let launch = tester.launches("linux").remove(0);
    (tester, launch)
}

fn hello(tester: &mut Tester, launch: &LaunchId, phase: HostPhase, name: Option<&str>) -> Changes {
    tester.tell(Event::AgentConnected {
        launch: launch.clone(),
        phase,
        assignment: name.map(RunnerName::new),
        heard_at: at(tester.second),
    })
}

fn stage(tester: &Tester, launch: &LaunchId) -> Stage {
    tester.fleet.runner(launch).unwrap().stage()
}

fn names(changes: &Changes) -> Vec<String> {
    let keys = changes.effects.iter().map(Effect::key);
    keys.map(|key| key.split('/').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn an_instance_that_the_ledger_has_lost_gets_a_row_and_is_no_stray() {
    let (mut tester, launch) = with_found();
    let again = tester.tell(listing(vec![marked(INSTANCE, "linux")]));
    assert_eq!(again.effects, []);
    assert_eq!(tester.launches("linux"), std::slice::from_ref(&launch));
    let runner = tester.fleet.runner(&launch).unwrap();
    assert_eq!(runner.stage(), Stage::Found);
    assert_eq!(
        runner.marks.created_at,
        at(-600),
        "its limits count from its start"
    );
}

#[rstest]
#[case::listening(HostPhase::Listening, Stage::Idle)]
#[case::running(HostPhase::Running, Stage::Busy)]
#[case::starting(HostPhase::Starting, Stage::Starting)]
// Its last word is on its way.
#[case::finished(HostPhase::Finished, Stage::Starting)]
fn its_agent_goes_on_with_its_assignment(#[case] phase: HostPhase, #[case] then: Stage) {
    let (mut tester, launch) = with_found();
    let changes = hello(&mut tester, &launch, phase, Some(NAME));
    assert_eq!(stage(&tester, &launch), then);
    assert!(told(&changes).contains(&"adopted"), "{changes:?}");
    let found = tester.fleet.find_runner(NAME).unwrap();
    assert_eq!(found.launch, launch);
    let changes = tester.tell(finished(&launch, Outcome::Succeeded));
    assert_eq!(names(&changes), ["terminate", "deregister"]);
}

#[test]
fn a_job_that_runs_is_accounted_for_in_whatever_order_the_news_come() {
    for job_first in [true, false] {
        let (mut tester, launch) = with_found();
        if job_first {
            tester.tell(look(started(1, NAME, 0)));
        }
        hello(&mut tester, &launch, HostPhase::Running, Some(NAME));
        if !job_first {
            tester.tell(look(started(1, NAME, 0)));
        }
        let runner = tester.fleet.runner(&launch).unwrap();
        assert_eq!(runner.job, Some(JobId(1)));
        assert_eq!(tester.job(1).taken_by, Some(launch.clone()));
        tester.tell(webhook(ended(1, NAME, "success", 9)));
        tester.tell(finished(&launch, Outcome::Succeeded));
        assert_eq!(stage(&tester, &launch), Stage::Ending);
    }
}

#[test]
fn nothing_is_launched_before_the_instances_are_known_that_count() {
    let mut tester = empty(vec![PoolSpec {
        max: 2,
        ..pool("linux")
    }]);
    for id in 1..=3 {
        assert_eq!(launched(&tester.tell(look(report(id)))), 0);
    }
    let explained = tester.fleet.explain(JobId(1), at(0)).unwrap();
    assert!(explained.next.contains("not been listed"), "{explained:?}");
    tester.tell(Event::ListingFailed {
        account: "local".into(),
        reason: "nobody answers".to_owned(),
    });
    let explained = tester.fleet.explain(JobId(1), at(0)).unwrap();
    let why = "not been listed yet: nobody answers";
    assert!(explained.next.contains(why), "{explained:?}");
    let changes = tester.tell(listing(vec![marked(INSTANCE, "linux")]));
    assert_eq!(launched(&changes), 1, "one of two places is taken");
}

#[test]
fn what_waited_for_the_first_listing_is_launched_by_it_though_nothing_is_alive() {
    let mut tester = empty(vec![pool("linux")]);
    assert_eq!(launched(&tester.tell(webhook(report(1)))), 0);
    assert_eq!(launched(&tester.tell(listing(Vec::new()))), 1);
}

#[test]
fn a_host_without_an_assignment_is_ended_and_never_gets_one() {
    let (mut tester, launch) = with_found();
    tester.tell(Event::Enrolled {
        launch: launch.clone(),
        instance: INSTANCE.into(),
    });
    assert_eq!(
        stage(&tester, &launch),
        Stage::Found,
        "it had enrolled before"
    );
    let changes = hello(&mut tester, &launch, HostPhase::Unassigned, None);
    assert_eq!(names(&changes), ["terminate"]);
}

#[rstest]
#[case::of_another_pool("muster-arm-abcdefghijkl")]
#[case::of_another_host("")]
fn an_assignment_that_is_not_its_own_is_refused(#[case] name: &str) {
    let (mut tester, launch) = with_found();
    tester.tell(webhook(report(1)));
    let mut launches = tester.launches("linux");
    launches.retain(|other| *other != launch);
    let theirs = tester.name(&launches[0]);
    let name = if name.is_empty() {
        theirs.as_str()
    } else {
        name
    };
    tester.tell(Event::Launched {
        launch: launches[0].clone(),
        instance: Tester::instance(&launches[0]),
        offering: None,
    });
    hello(&mut tester, &launch, HostPhase::Running, Some(name));
    assert_eq!(stage(&tester, &launch), Stage::Ending);
    assert_eq!(stage(&tester, &launches[0]), Stage::Booting);
}

#[test]
fn an_agent_that_does_not_come_back_is_waited_for_as_long_as_one_with_a_job() {
    let (mut tester, launch) = with_found();
    let wait = i64::try_from(pool("linux").limits.silence_busy.as_secs()).unwrap();
    assert_eq!(tester.pass(wait - 1).effects, []);
    assert_eq!(names(&tester.pass(1)), ["terminate"]);
    assert_eq!(stage(&tester, &launch), Stage::Ending);
}

#[test]
fn what_no_pool_of_the_account_launched_is_a_stray() {
    let mut tester = empty(vec![pool("linux")]);
    let listed = || listing(vec![marked(INSTANCE, "windows")]);
    assert_eq!(tester.tell(listed()).effects, []);
    assert_eq!(names(&tester.tell(listed())), ["terminate-stray"]);
}

#[test]
fn an_instance_that_was_ended_before_is_not_adopted() {
    let (mut tester, launch) = with_found();
    tester.tell(listing(Vec::new()));
    tester.tell(listing(Vec::new()));
    assert!(tester.fleet.runner(&launch).unwrap().instance_is_gone());
    tester.tell(listing(vec![marked(INSTANCE, "linux")]));
    let again = tester.tell(listing(vec![marked(INSTANCE, "linux")]));
    assert_eq!(names(&again), ["terminate-stray"]);
}

#[test]
fn its_registration_is_known_by_name_until_github_lists_it() {
    let (mut tester, launch) = with_found();
    hello(&mut tester, &launch, HostPhase::Listening, Some(NAME));
    let registration = |tester: &Tester| tester.fleet.runner(&launch).unwrap().registration.clone();
    assert_eq!(registration(&tester), Registration::Exists { id: None });
    let id = GithubRunnerId(42);
    let changes = tester.tell(Event::RunnersListed {
        scope: pool("linux").scope,
        listed: vec![Registered {
            name: NAME.into(),
            id,
            launch: launch.clone(),
            busy: false,
        }],
    });
    assert!(changes.runners.contains(&launch), "it is stored");
    assert_eq!(registration(&tester), Registration::Exists { id: Some(id) });
}

#[test]
fn an_idle_one_that_nobody_needs_is_drained_as_any_other() {
    let (mut tester, launch) = with_found();
    hello(&mut tester, &launch, HostPhase::Listening, Some(NAME));
    let idle = i64::try_from(pool("linux").limits.idle.as_secs()).unwrap();
    assert_eq!(names(&tester.pass(idle)), ["drain"]);
    let looked = Event::DrainReported {
        launch: launch.clone(),
        idle: true,
    };
    let changes = tester.tell(looked);
    let [Effect::Deregister { id: None, name, .. }] = &changes.effects[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(name.as_str(), NAME);
    let busy = Event::Deregistered {
        launch: launch.clone(),
        name: NAME.into(),
        answer: DeregisterAnswer::Busy,
    };
    tester.tell(busy);
    assert_eq!(stage(&tester, &launch), Stage::Busy, "it is left to run");
    let changes = tester.tell(finished(&launch, Outcome::Succeeded));
    assert_eq!(names(&changes), ["terminate", "deregister"]);
}

#[test]
fn one_that_is_drained_before_its_agent_comes_is_asked_once_it_has() {
    let (mut tester, launch) = with_found();
    let drain = Event::OperatorDrain {
        launch: launch.clone(),
        reason: "test".into(),
    };
    assert_eq!(tester.tell(drain).effects, []);
    let changes = hello(&mut tester, &launch, HostPhase::Running, Some(NAME));
    assert_eq!(names(&changes), ["drain"]);
}

/// A ledger that was put back to a time before it gave a host its assignment.
fn put_back(enrolled: bool) -> (Tester, LaunchId, RunnerName) {
    let mut tester = Tester::new(vec![pool("linux")]);
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").remove(0);
    let instance = Tester::instance(&launch);
    tester.tell(Event::Launched {
        launch: launch.clone(),
        instance: instance.clone(),
        offering: None,
    });
    if enrolled {
        let launch = launch.clone();
        tester.tell(Event::Enrolled { launch, instance });
    }
    let name = tester.name(&launch);
    (tester, launch, name)
}

#[rstest]
fn a_host_that_the_ledger_has_not_assigned_yet_goes_on_with_its_job(
    #[values(false, true)] enrolled: bool,
    #[values("", "-2")] attempt: &str,
) {
    let (mut tester, launch, name) = put_back(enrolled);
    let name = format!("{name}{attempt}");
    let changes = hello(&mut tester, &launch, HostPhase::Running, Some(&name));
    assert_eq!(stage(&tester, &launch), Stage::Busy, "{changes:?}");
    assert!(!names(&changes).contains(&"terminate".to_owned()));
    tester.tell(look(started(1, &name, 0)));
    assert_eq!(tester.job(1).taken_by, Some(launch.clone()));
    // Nobody waits any more for what was asked of GitHub then.
    let changes = tester.tell(Event::MintFailed {
        launch: launch.clone(),
        name: name.as_str().into(),
        failure: MintFailure::NameTaken,
        detail: "a runner of this name exists".into(),
    });
    assert_eq!(names(&changes), [""; 0]);
    tester.tell(finished(&launch, Outcome::Succeeded));
    assert_eq!(stage(&tester, &launch), Stage::Ending);
}

#[rstest]
#[case::of_another_launch("muster-linux-abcdefghijkl")]
#[case::of_another_pool("muster-windows-abcdefghijkl")]
fn a_host_that_claims_what_can_not_be_its_own_is_ended(#[case] claim: &str) {
    let (mut tester, launch, _) = put_back(true);
    let changes = hello(&mut tester, &launch, HostPhase::Running, Some(claim));
    assert!(names(&changes).contains(&"terminate".to_owned()));
}

/// The store was put back to a time when a registration had been asked for, and GitHub, asked again, says that there is one.
#[rstest]
fn a_registration_that_was_made_before_is_not_deleted_before_its_agent_is_back(
    #[values(true, false)] has_it: bool,
) {
    let (mut tester, launch, name) = put_back(true);
    let asked = hello(&mut tester, &launch, HostPhase::Unassigned, None);
    assert_eq!(names(&asked), ["mint"]);
    tester.tell(Event::Restarted);
    let taken = |name: &RunnerName| Event::MintFailed {
        launch: launch.clone(),
        name: name.clone(),
        failure: MintFailure::NameTaken,
        detail: "a runner of this name exists".into(),
    };
    let changes = tester.tell(taken(&name));
    assert_eq!(names(&changes), [""; 0]);
    if has_it {
        let changes = hello(
            &mut tester,
            &launch,
            HostPhase::Running,
            Some(name.as_str()),
        );
        assert_eq!(stage(&tester, &launch), Stage::Busy, "{changes:?}");
        assert_eq!(names(&changes), [""; 0]);
    } else {
        // Nobody has it.
        let changes = hello(&mut tester, &launch, HostPhase::Unassigned, None);
        assert_eq!(names(&changes), ["deregister", "mint"]);
        let made = tester.fleet.runner(&launch).unwrap().marks.registered_at;
        assert_eq!(made, None, "the other one isn't older than it is");
        assert_eq!(tester.name(&launch).as_str(), format!("{name}-2"));
    }
}

/// The store was put back to a time before it asked for the instance that has the job.
#[test]
fn an_instance_whose_launch_is_still_to_come_goes_on_with_its_job() {
    let mut tester = Tester::new(vec![pool("linux")]);
    tester.tell(webhook(report(1)));
    let wanted = tester.launches("linux").remove(0);
    let name = tester.name(&wanted);
    restart(&mut tester);
    tester.tell(listing(vec![marked(INSTANCE, "linux")]));
    let found = tester.fleet.runner_of(&"local".into(), &INSTANCE.into());
    let found = found.unwrap().launch.clone();
    let changes = hello(&mut tester, &found, HostPhase::Running, Some(name.as_str()));
    assert_eq!(stage(&tester, &found), Stage::Busy, "{changes:?}");
    assert_eq!(names(&changes), ["withdraw"]);
    assert!(tester.fleet.runner(&wanted).unwrap().is_over());
    // The name stays that of the one that works under it.
    restart(&mut tester);
    tester.tell(look(started(1, name.as_str(), 0)));
    assert_eq!(tester.job(1).taken_by, Some(found));
}
