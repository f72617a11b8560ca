//! Jobs whose host went in the middle of them: recognised, and run again no more often than the pool says.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{
    Tester, at, calls, cause, ended, finished, first_attempt, gone, look, pool, report, rerun,
    rerunning, restart, running, started, watches, webhook,
};
use muster_core::{
    Cause, Effect, Event, HostPhase, Interruption, JobId, JobReport, LaunchFailure, LaunchId,
    Market, Outcome, Rerun, RerunAnswer, RerunCall, RunSeen,
};
use rstest::rstest;

fn spot(launch: &LaunchId) -> Event {
    Event::Interrupted {
        launch: launch.clone(),
        kind: Interruption::Spot,
        deadline: Some(at(130)),
        detail: String::new(),
    }
}

fn completed(conclusion: &str, jobs: Vec<JobReport>) -> Event {
    Event::RunCompleted {
        run: first_attempt(),
        seen: Box::new(RunSeen {
            attempt: 1,
            conclusion: Some(conclusion.into()),
            jobs,
        }),
    }
}

fn answered(answer: RerunAnswer) -> Event {
    Event::RerunAnswered {
        run: first_attempt(),
        answer,
    }
}

fn again(id: i64, of: i64, attempt: u32) -> JobReport {
    JobReport {
        run_attempt: Some(attempt),
        name: report(of).name,
        ..report(id)
    }
}

/// A job that Spot has cut short and that GitHub calls failed.
fn interrupted(tester: &mut Tester, id: i64) -> String {
    let (launch, name) = running(tester, id);
    tester.tell(spot(&launch));
    tester.tell(finished(&launch, Outcome::Interrupted));
    tester.tell(webhook(ended(id, name.as_str(), "failure", 20)));
    name.to_string()
}

#[test]
fn a_job_that_spot_took_runs_again_once_on_demand() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(spot(&launch));
    tester.tell(finished(&launch, Outcome::Interrupted));
    assert_eq!(cause(&tester, 1), Some(Cause::Spot));
    let failed = ended(1, name.as_str(), "failure", 20);
    assert_eq!(watches(&tester.tell(webhook(failed.clone()))), 1);
    let changes = tester.tell(completed("failure", vec![failed]));
    assert_eq!(calls(&changes), [&RerunCall::Job(JobId(1))]);
    assert_eq!(
        tester.tell(answered(RerunAnswer::Started)).reruns,
        [RerunAnswer::Started]
    );
    assert_eq!(
        rerun(&tester, 1).as_deref(),
        Some("runs again in attempt 2")
    );

    let changes = tester.tell(webhook(again(2, 1, 2)));
    let markets: Vec<_> = changes
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Launch { shape, .. } => Some(shape.market),
            _ => None,
        })
        .collect();
    assert_eq!(markets, [Some(Market::OnDemand)]);
    assert_eq!(tester.job(2).lineage.of, Some(JobId(1)));

    // The repetition is interrupted, too.
    let launch = tester.launches("linux").pop().unwrap();
    let name = tester.listens(&launch);
    let on = |report: JobReport| JobReport {
        name: report2_name(),
        run_attempt: Some(2),
        ..report
    };
    tester.tell(webhook(on(started(2, name.as_str(), 30))));
    tester.tell(gone(&launch));
    let changes = tester.tell(webhook(on(ended(2, name.as_str(), "failure", 640))));
    assert_eq!(watches(&changes), 0);
    assert_eq!(cause(&tester, 2), Some(Cause::InstanceGone));
    let left = "left to people: it was run again 1 of at most 1 times";
    assert_eq!(rerun(&tester, 2).as_deref(), Some(left));
}

fn report2_name() -> String {
    report(1).name
}

#[rstest]
#[case::the_agent_stopped_it(|launch: &LaunchId| finished(launch, Outcome::Interrupted), Some(Cause::Stopped))]
#[case::the_runner_gave_it_up(|launch: &LaunchId| finished(launch, Outcome::Abandoned), Some(Cause::Abandoned))]
#[case::the_instance_is_gone(gone, Some(Cause::InstanceGone))]
#[case::the_job_failed(|launch: &LaunchId| finished(launch, Outcome::Failed), None)]
#[case::the_job_succeeded(|launch: &LaunchId| finished(launch, Outcome::Succeeded), None)]
#[case::the_user_cancelled_it(|launch: &LaunchId| finished(launch, Outcome::Canceled), None)]
#[case::the_job_killed_its_runner(|launch: &LaunchId| finished(launch, Outcome::Lost), None)]
#[case::an_operator_ended_it(|launch: &LaunchId| Event::OperatorTerminate {
    launch: launch.clone(), reason: "test".into() }, None)]
#[case::it_was_not_trusted(|launch: &LaunchId| Event::Distrusted {
    launch: launch.clone(), reason: "test".into() }, None)]
fn only_what_the_host_did_counts_as_an_interruption(
    #[case] end: impl Fn(&LaunchId) -> Event,
    #[case] expected: Option<Cause>,
) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(end(&launch));
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", 600)));
    assert_eq!(cause(&tester, 1), expected);
    assert_eq!(watches(&changes), usize::from(expected.is_some()));
}

#[rstest]
#[case::its_agent_told(true)]
#[case::its_agent_could_not_tell(false)]
fn a_host_that_is_shut_down_in_order_fails_its_job_at_once(#[case] told: bool) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    // The runner itself reports its job, so GitHub may be first with the news.
    let failed = ended(1, name.as_str(), "failure", 5);
    let mut watched = watches(&tester.tell(webhook(failed)));
    if told {
        watched += watches(&tester.tell(finished(&launch, Outcome::Interrupted)));
    }
    watched += watches(&tester.tell(gone(&launch)));
    assert_eq!(cause(&tester, 1), told.then_some(Cause::Stopped));
    assert_eq!(watched, usize::from(told));
}

#[test]
fn a_notice_before_a_test_fails_by_itself_is_no_interruption() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(spot(&launch));
    tester.tell(finished(&launch, Outcome::Failed));
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", 20)));
    assert_eq!((cause(&tester, 1), watches(&changes)), (None, 0));
}

#[test]
fn a_host_that_outlives_its_interruption_has_interrupted_its_job() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(spot(&launch));
    tester.pass(161);
    assert!(tester.fleet.runner(&launch).unwrap().is_over());
    assert_eq!(cause(&tester, 1), Some(Cause::Spot));
    let failed = ended(1, name.as_str(), "failure", 170);
    assert_eq!(watches(&tester.tell(webhook(failed))), 1);
}

#[rstest]
#[case::success("success", None)]
#[case::cancelled("cancelled", Some("left to people: it ended with cancelled"))]
#[case::timed_out("timed_out", Some("left to people: it ended with timed_out"))]
fn only_a_job_that_github_calls_failed_runs_again(
    #[case] conclusion: &str,
    #[case] expected: Option<&str>,
) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(gone(&launch));
    let changes = tester.tell(webhook(ended(1, name.as_str(), conclusion, 600)));
    assert_eq!(watches(&changes), 0);
    assert_eq!(rerun(&tester, 1).as_deref(), expected);
}

#[test]
fn without_a_policy_it_is_told_and_left() {
    let mut tester = Tester::new(vec![pool("linux")]);
    interrupted(&mut tester, 1);
    assert_eq!(
        (cause(&tester, 1), rerun(&tester, 1)),
        (Some(Cause::Spot), None)
    );
}

#[test]
fn a_cancelled_run_is_left_alone() {
    let mut tester = rerunning();
    let name = interrupted(&mut tester, 1);
    let changes = tester.tell(completed("cancelled", vec![ended(1, &name, "failure", 20)]));
    assert_eq!(calls(&changes), [] as [&RerunCall; 0]);
    assert_eq!(
        rerun(&tester, 1).as_deref(),
        Some("left to people: its run was cancelled")
    );
}

#[test]
fn a_newer_attempt_leaves_nothing_to_do() {
    let mut tester = rerunning();
    interrupted(&mut tester, 1);
    let seen = RunSeen {
        attempt: 2,
        conclusion: None,
        jobs: Vec::new(),
    };
    let changes = tester.tell(Event::RunCompleted {
        run: first_attempt(),
        seen: Box::new(seen),
    });
    assert_eq!(calls(&changes), [] as [&RerunCall; 0]);
    assert_eq!(
        rerun(&tester, 1).as_deref(),
        Some("left to people: attempt 2 of its run exists")
    );
}

#[test]
fn several_interrupted_jobs_of_one_run_go_in_one_call() {
    let mut tester = rerunning();
    let first = interrupted(&mut tester, 1);
    let second = interrupted(&mut tester, 2);
    let jobs = vec![
        ended(1, &first, "failure", 20),
        ended(2, &second, "failure", 20),
    ];
    let changes = tester.tell(completed("failure", jobs.clone()));
    assert_eq!(calls(&changes), [&RerunCall::FailedJobs]);
    assert_eq!(
        calls(&tester.tell(completed("failure", jobs))),
        [] as [&RerunCall; 0]
    );
    tester.tell(answered(RerunAnswer::Newer(2)));
    for id in [1, 2] {
        assert_eq!(
            rerun(&tester, id).as_deref(),
            Some("runs again in attempt 2")
        );
    }
    for (id, of) in [(3, 1), (4, 2)] {
        tester.tell(webhook(again(id, of, 2)));
        assert_eq!(tester.job(id).lineage.of, Some(JobId(of)));
    }
}

#[test]
fn a_failed_job_whose_host_is_not_judged_yet_is_waited_for() {
    let mut tester = rerunning();
    let first = interrupted(&mut tester, 1);
    let (launch, second) = running(&mut tester, 2);
    // Of the second we have heard nothing: neither that it failed nor that its host went.
    let jobs = vec![
        ended(1, &first, "failure", 20),
        ended(2, second.as_str(), "failure", 600),
    ];
    let changes = tester.tell(completed("failure", jobs.clone()));
    assert_eq!(calls(&changes), [] as [&RerunCall; 0]);
    assert_eq!(watches(&tester.pass(9)), 0);
    assert_eq!(watches(&tester.pass(1)), 1, "the run is looked at again");
    tester.tell(gone(&launch));
    let changes = tester.tell(completed("failure", jobs));
    assert_eq!(calls(&changes), [&RerunCall::FailedJobs]);
}

#[test]
fn a_run_is_looked_at_again_also_if_the_clock_was_ahead() {
    let mut tester = rerunning();
    let first = interrupted(&mut tester, 1);
    let (_, second) = running(&mut tester, 2);
    let jobs = vec![
        ended(1, &first, "failure", 20),
        ended(2, second.as_str(), "failure", 600),
    ];
    tester.second = 3 * 3_600;
    tester.tell(completed("failure", jobs));
    tester.second = 700;
    assert_eq!(watches(&tester.tell(Event::Tick)), 1);
}

#[test]
fn the_news_may_come_in_any_order() {
    let mut tester = rerunning();
    let before = tester.launches("linux").len();
    tester.tell(webhook(report(1)));
    assert_eq!(before, 0);
    let launch = tester.launches("linux").remove(0);
    let name = tester.listens(&launch);
    tester.phase(&launch, HostPhase::Running);
    // The host goes before anybody says which job it has; all webhooks but the last are lost.
    tester.tell(gone(&launch));
    let changes = tester.tell(look(ended(1, name.as_str(), "failure", 600)));
    assert_eq!(
        (cause(&tester, 1), watches(&changes)),
        (Some(Cause::InstanceGone), 1)
    );
}

#[test]
fn a_run_that_is_watched_no_longer_is_left_to_people() {
    let mut tester = rerunning();
    interrupted(&mut tester, 1);
    let reason = "GitHub lets no run be this old".to_owned();
    let run = first_attempt();
    tester.tell(Event::RunLeft { run, reason });
    let left = "left to people: GitHub lets no run be this old";
    assert_eq!(rerun(&tester, 1).as_deref(), Some(left));
    assert_eq!(watches(&tester.pass(60)), 0);
}

#[test]
fn what_holds_up_a_repetition_is_explained() {
    let mut tester = rerunning();
    let name = interrupted(&mut tester, 1);
    tester.tell(completed("failure", vec![ended(1, &name, "failure", 20)]));
    tester.tell(answered(RerunAnswer::Started));
    tester.tell(webhook(again(2, 1, 2)));
    tester.tell(Event::LaunchFailed {
        launch: tester.launches("linux").pop().unwrap(),
        failure: LaunchFailure::Unfit,
        detail: "nothing on-demand".into(),
    });
    let explanation = tester.fleet.explain(JobId(2), at(tester.second)).unwrap();
    let verdict = &explanation.pools[0];
    assert!(!verdict.accepts, "{verdict:?}");
    assert!(verdict.reason.contains("nothing on-demand"), "{verdict:?}");
}

#[test]
fn a_refusal_is_told_and_final() {
    let mut tester = rerunning();
    let name = interrupted(&mut tester, 1);
    tester.tell(completed("failure", vec![ended(1, &name, "failure", 20)]));
    tester.tell(answered(RerunAnswer::Refused("it is too old".into())));
    assert_eq!(
        rerun(&tester, 1).as_deref(),
        Some("left to people: GitHub: it is too old")
    );
    assert_eq!(tester.tell(answered(RerunAnswer::Started)).refused.len(), 1);
}

#[test]
fn what_was_asked_is_remembered_over_restarts_and_days() {
    let mut tester = rerunning();
    let name = interrupted(&mut tester, 1);
    tester.tell(completed("failure", vec![ended(1, &name, "failure", 20)]));
    restart(&mut tester);
    tester.pass(3 * 24 * 3_600);
    restart(&mut tester);
    assert!(matches!(
        tester.job(1).cut_short.as_ref().unwrap().rerun,
        Some(Rerun::Asked)
    ));
    tester.tell(answered(RerunAnswer::Started));
    tester.pass(3_600);
    tester.tell(webhook(again(2, 1, 2)));
    assert_eq!(tester.job(2).lineage.count, 1);
    // A user runs it again by hand: that is no reason to start counting anew.
    tester.tell(look(again(3, 1, 3)));
    let lineage = &tester.job(3).lineage;
    assert_eq!((lineage.count, lineage.of, lineage.market), (1, None, None));
}
