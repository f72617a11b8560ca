//! Jobs of hosts that nothing was heard of: cut short only if GitHub gave them up.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{
    Step, Tester, at, cause, ended, gone, look, report, rerun, rerunning, restart, running,
    started, told, watches, webhook,
};
use muster_core::{
    Cause, DeregisterAnswer, Event, Interruption, JobId, JobReport, JobStatus, TimeLimits,
};
use rstest::rstest;

#[rstest]
#[case::it_had_failed_before(0, None)]
#[case::it_failed_while_nobody_told(300, None)]
#[case::github_gave_it_up(590, Some(Cause::AgentSilent))]
fn an_agent_that_fell_silent_was_an_interruption_only_if_github_gave_its_job_up(
    #[case] ended_at: i64,
    #[case] expected: Option<Cause>,
) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(Event::AgentLost {
        launch,
        heard_at: at(tester.second),
    });
    tester.second = ended_at;
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", ended_at)));
    assert_eq!(watches(&changes), 0, "its agent may come back");
    let again = usize::from(expected.is_some());
    assert_eq!(watches(&tester.pass(121)), again);
    assert_eq!(cause(&tester, 1), expected);
}

#[test]
fn a_host_that_went_after_its_job_had_failed_interrupted_nothing() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.second = 20;
    let changes = tester.tell(gone(&launch));
    assert!(told(&changes).contains(&"interrupted"));
    let failed = ended(1, name.as_str(), "failure", 19);
    let changes = tester.tell(webhook(failed.clone()));
    assert!(told(&changes).contains(&"not interrupted"));
    assert_eq!((cause(&tester, 1), watches(&changes)), (None, 0));
    // The same is not told again when it is looked at.
    tester.tell(look(failed));
    assert_eq!(cause(&tester, 1), None);
}

#[test]
fn a_job_is_left_to_people_if_github_does_not_say_when_it_ended() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(gone(&launch));
    let failed = JobReport {
        completed_at: None,
        ..ended(1, name.as_str(), "failure", 0)
    };
    tester.second = 600;
    assert_eq!(watches(&tester.tell(webhook(failed))), 0);
    let left = "left to people: GitHub does not say when it ended, so it may have failed by itself";
    assert_eq!(rerun(&tester, 1).as_deref(), Some(left));
}

#[rstest]
#[case::before_anybody_was_silent(500, None, 0)]
#[case::while_nobody_listened(600, Some(Cause::AgentSilent), 0)]
#[case::long_after_it_was_seen_to_be_silent(1_000, Some(Cause::AgentSilent), 1)]
fn a_silence_that_began_while_nobody_listened_is_judged_by_both_its_ends(
    #[case] ended_at: i64,
    #[case] expected: Option<Cause>,
    #[case] again: usize,
) {
    let mut tester = rerunning();
    let (_, name) = running(&mut tester, 1);
    // The coordinator is away for 400 seconds.
    tester.second = 400;
    restart(&mut tester);
    tester.second = ended_at;
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", ended_at)));
    assert_eq!((cause(&tester, 1), watches(&changes)), (None, 0));
    let again_after = watches(&tester.pass(700));
    assert_eq!((cause(&tester, 1), again_after), (expected, again));
    if expected.is_some() && again == 0 {
        let left = rerun(&tester, 1);
        assert!(left.is_some_and(|left| left.contains("nobody knows whether its host was there")));
    }
}

/// Its silence is noticed so late that GitHub seems to have given it up too early: the store was out of order.
#[rstest]
#[case::by_itself_before_that_was_known(180, 180, None, 0)]
#[case::github_gave_it_up(180, 600, Some(Cause::InstanceGone), 1)]
#[case::github_gave_it_up_and_the_coordinator_was_away(400, 600, Some(Cause::InstanceGone), 1)]
fn where_an_instance_is_gone_no_job_ends_by_itself(
    #[case] known_at: i64,
    #[case] ended_at: i64,
    #[case] expected: Option<Cause>,
    #[case] again: usize,
) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.second = known_at;
    tester.tell(Event::AgentLost {
        launch: launch.clone(),
        heard_at: at(tester.second),
    });
    tester.tell(gone(&launch));
    tester.second = ended_at;
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", ended_at)));
    assert_eq!((cause(&tester, 1), watches(&changes)), (expected, again));
}

/// Its agent was there at 5 for the last time, and its silence is noticed at 180.
#[rstest]
#[case::it_had_failed_before(500, None, 0)]
#[case::nobody_knows(600, Some(Cause::AgentSilent), 0)]
#[case::github_gave_it_up_in_any_case(700, Some(Cause::AgentSilent), 1)]
fn a_silence_that_is_noticed_late_is_judged_by_both_its_ends(
    #[case] ended_at: i64,
    #[case] expected: Option<Cause>,
    #[case] again: usize,
) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.second = 180;
    tester.tell(Event::AgentLost {
        launch,
        heard_at: at(5),
    });
    tester.second = ended_at;
    tester.tell(webhook(ended(1, name.as_str(), "failure", ended_at)));
    let again_after = watches(&tester.pass(700));
    assert_eq!((cause(&tester, 1), again_after), (expected, again));
}

/// A runner takes a job as soon as it is started, which its agent may not have told yet.
#[rstest]
#[case::idle(Step::Listens)]
#[case::starting(Step::Accepted)]
#[case::assigning(Step::Minted)]
fn a_job_that_nobody_knew_of_when_its_host_went_was_cut_short(#[case] step: Step) {
    let mut tester = rerunning();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").pop().unwrap();
    let name = tester.comes_to(&launch, step);
    tester.second = 20;
    tester.tell(gone(&launch));
    tester.tell(webhook(started(1, name.as_str(), 19)));
    assert_eq!(cause(&tester, 1), Some(Cause::InstanceGone));
    tester.second = 640;
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", 640)));
    assert_eq!(watches(&changes), 1);
}

/// The host goes before its agent has answered: GitHub keeps the registration until it has given the job up.
#[rstest]
#[case::that_was_given_up(650, Some(Cause::AgentSilent))]
#[case::that_had_failed_before(400, None)]
fn a_runner_that_never_listened_may_have_had_a_job(
    #[case] ended_at: i64,
    #[case] expected: Option<Cause>,
) {
    let mut tester = rerunning();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").pop().unwrap();
    let name = tester.comes_to(&launch, Step::Minted);
    tester.second = 5;
    tester.tell(Event::AgentLost {
        launch: launch.clone(),
        heard_at: at(5),
    });
    assert!(told(&tester.pass(655)).contains(&"late"));
    let changes = tester.tell(Event::Deregistered {
        launch: launch.clone(),
        name: name.clone(),
        answer: DeregisterAnswer::Deleted,
    });
    assert!(told(&changes).contains(&"ended"));
    tester.second = 700;
    tester.tell(gone(&launch));
    // It is heard of last.
    tester.second = 3_000;
    let changes = tester.tell(look(ended(1, name.as_str(), "failure", ended_at)));
    assert_eq!(cause(&tester, 1), expected);
    assert_eq!(watches(&changes), usize::from(expected.is_some()));
}

#[rstest]
#[case::before_its_agent_would_stop_it(80, 0)]
#[case::when_its_agent_stopped_it(115, 1)]
#[case::when_github_gave_it_up(700, 1)]
fn a_job_of_a_host_that_was_announced_to_go_may_have_failed_before(
    #[case] ended_at: i64,
    #[case] again: usize,
) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.second = 40;
    tester.tell(Event::Interrupted {
        launch: launch.clone(),
        kind: Interruption::Spot,
        deadline: Some(at(160)),
        detail: String::new(),
    });
    tester.second = 161;
    tester.tell(gone(&launch));
    tester.second = ended_at.max(161);
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", ended_at)));
    assert_eq!(watches(&changes), again);
}

/// For longer than an agent may be silent no coordinator ran, or nothing could be stored: its job may be well, and it
/// comes back soon.
#[rstest]
#[case::a_start(restart)]
#[case::an_outage_of_the_store(resume)]
fn an_agent_that_was_lost_before_has_all_its_time_again_after(#[case] gap: fn(&mut Tester)) {
    let mut tester = rerunning();
    let (launch, _) = running(&mut tester, 1);
    tester.tell(Event::AgentLost {
        launch: launch.clone(),
        heard_at: at(0),
    });
    tester.second = 3_000;
    gap(&mut tester);
    let limit = i64::try_from(TimeLimits::default().silence_busy.as_secs()).unwrap();
    tester.pass(limit - 1);
    assert!(!tester.fleet.runner(&launch).unwrap().is_over());
    tester.pass(1);
    assert!(tester.fleet.runner(&launch).unwrap().is_over());
}

fn resume(tester: &mut Tester) {
    tester.tell(Event::Resumed);
}

/// It could not enrol, or say that its runner listens.
#[rstest]
#[case::that_boots(false, 300)]
#[case::that_starts(true, 360)]
fn a_host_has_all_its_time_again_after_an_outage(#[case] starts: bool, #[case] limit: i64) {
    let mut tester = rerunning();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").pop().unwrap();
    tester.tell(Event::Launched {
        launch: launch.clone(),
        instance: Tester::instance(&launch),
        offering: None,
    });
    if starts {
        tester.tell(Event::Enrolled {
            launch: launch.clone(),
            instance: Tester::instance(&launch),
        });
    }
    tester.second = 3_000;
    resume(&mut tester);
    tester.pass(limit - 1);
    assert!(!tester.fleet.runner(&launch).unwrap().is_over());
    tester.pass(1);
    assert!(tester.fleet.runner(&launch).unwrap().is_over());
}

/// No webhook told of its end, and it was not looked at for long.
#[test]
fn a_job_that_is_found_to_have_ended_long_ago_is_stored_as_that_before_it_is_forgotten() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(gone(&launch));
    tester.second = 10 * 24 * 3_600;
    // Both are taken together, and stored in one transaction.
    let together = [look(ended(1, name.as_str(), "success", 20)), Event::Tick];
    let changes = tester.fleet.apply_all(together, at(tester.second));
    assert!(changes.jobs.contains(&JobId(1)) && changes.forgotten_jobs.is_empty());
    assert_eq!(tester.job(1).status(), JobStatus::Completed);
    assert!(tester.pass(60).forgotten_jobs.contains(&JobId(1)));
}

/// It is forgotten by the time, and heard of again before that is stored.
#[test]
fn a_job_that_is_heard_of_again_is_not_forgotten() {
    let mut tester = rerunning();
    tester.tell(webhook(report(1)));
    for _ in 0..2 {
        tester.tell(Event::JobMissing { job: JobId(1) });
        tester.second += 60;
    }
    tester.second += 3_600;
    let together = [Event::Tick, webhook(started(1, "x", tester.second))];
    let changes = tester.fleet.apply_all(together, at(tester.second));
    assert!(changes.jobs.contains(&JobId(1)) && changes.forgotten_jobs.is_empty());
    assert_eq!(tester.job(1).status(), JobStatus::InProgress);
}

/// A deploy while a host hangs. Since when it is silent is known from before.
#[test]
fn a_restart_does_not_forget_since_when_a_host_was_silent() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    let heard_at = at(tester.second);
    tester.second += 15;
    tester.tell(Event::AgentLost { launch, heard_at });
    tester.second = 300;
    restart(&mut tester);
    tester.second = 600;
    tester.tell(webhook(ended(1, name.as_str(), "failure", 600)));
    assert_eq!(watches(&tester.pass(700)), 1);
    assert_eq!(cause(&tester, 1), Some(Cause::AgentSilent));
}
