//! Which pool's policy a cut job goes by, and what is no interruption.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{
    Tester, at, calls, cause, ended, finished, first_attempt, gone, pool, report, rerun, rerunning,
    running, started, watches, webhook,
};
use muster_core::{
    Cause, Closed, Event, HostPhase, JobId, JobReport, Market, Outcome, RerunAnswer, RerunCall,
    RerunPolicy, RunSeen,
};
use rstest::rstest;

/// GitHub goes by groups, too: a job that no pool takes may come to a runner of ours.
#[test]
fn a_job_that_no_pool_takes_is_that_of_the_pool_whose_runner_ran_it() {
    let mut tester = rerunning();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").pop().unwrap();
    let name = tester.listens(&launch);
    let unlabelled = |report: JobReport| JobReport {
        labels: Vec::new(),
        ..report
    };
    tester.second = 20;
    tester.tell(webhook(unlabelled(report(2))));
    tester.tell(webhook(unlabelled(started(2, name.as_str(), 20))));
    assert_eq!(tester.job(2).pool(), None);
    tester.second = 30;
    tester.tell(gone(&launch));
    tester.second = 700;
    let failed = unlabelled(ended(2, name.as_str(), "failure", 700));
    assert_eq!(watches(&tester.tell(webhook(failed))), 1);
    assert_eq!(cause(&tester, 2), Some(Cause::InstanceGone));
}

/// Its end is the first that is heard of it: the webhooks before were refused while the store was out of order.
#[test]
fn a_job_that_is_first_heard_of_by_its_end_is_judged_by_when_its_instance_was_gone() {
    let mut tester = rerunning();
    tester.tell(webhook(report(1)));
    let launch = tester.launches("linux").pop().unwrap();
    let name = tester.listens(&launch);
    tester.second = 180;
    tester.tell(Event::AgentLost {
        launch: launch.clone(),
        heard_at: at(180),
    });
    tester.tell(gone(&launch));
    tester.second = 610;
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", 600)));
    assert_eq!(cause(&tester, 1), Some(Cause::InstanceGone));
    assert_eq!(watches(&changes), 1);
}

/// Two jobs of one run, each cut short in a pool of its own.
fn of_two_pools(first: Option<Market>, second: Option<Market>) -> Tester {
    let policy = |market| {
        Some(RerunPolicy {
            attempts: 1,
            market,
        })
    };
    let (mut linux, mut other) = (pool("linux"), pool("other"));
    linux.rerun = policy(first);
    other.rerun = policy(second);
    let mut tester = Tester::new(vec![linux, other]);
    let in_other = |report: JobReport| JobReport {
        labels: vec!["self-hosted".to_owned(), "other".to_owned()],
        ..report
    };
    let (first_launch, first_name) = running(&mut tester, 1);
    tester.tell(webhook(in_other(report(2))));
    let second_launch = tester.launches("other").pop().unwrap();
    let second_name = tester.listens(&second_launch);
    tester.tell(webhook(in_other(started(2, second_name.as_str(), 9))));
    tester.phase(&second_launch, HostPhase::Running);
    tester.second = 20;
    tester.tell(gone(&first_launch));
    tester.tell(gone(&second_launch));
    tester.second = 700;
    let jobs = vec![
        ended(1, first_name.as_str(), "failure", 700),
        in_other(ended(2, second_name.as_str(), "failure", 700)),
    ];
    for job in &jobs {
        tester.tell(webhook(job.clone()));
    }
    let run = first_attempt();
    let seen = RunSeen {
        attempt: 1,
        conclusion: Some("failure".into()),
        jobs,
    };
    tester.tell(Event::RunCompleted {
        run: run.clone(),
        seen: Box::new(seen),
    });
    tester.tell(Event::RerunAnswered {
        run,
        answer: RerunAnswer::Started,
    });
    tester
}

#[rstest]
#[case::its_own(Some(Market::OnDemand), None, 1, Some(Market::OnDemand))]
#[case::its_own_is_none(None, Some(Market::OnDemand), 1, None)]
#[case::its_own_is_spot(Some(Market::Spot), Some(Market::OnDemand), 1, Some(Market::Spot))]
#[case::one_that_goes_with_them(Some(Market::OnDemand), None, 3, Some(Market::OnDemand))]
#[case::one_that_goes_with_them_too(
    Some(Market::Spot),
    Some(Market::OnDemand),
    3,
    Some(Market::OnDemand)
)]
fn a_repetition_goes_by_the_policy_of_its_own_job(
    #[case] first: Option<Market>,
    #[case] second: Option<Market>,
    #[case] name_of: i64,
    #[case] expected: Option<Market>,
) {
    let mut tester = of_two_pools(first, second);
    let again = JobReport {
        run_attempt: Some(2),
        name: report(name_of).name,
        ..report(11)
    };
    tester.tell(webhook(again));
    assert_eq!(tester.job(11).lineage.market, expected);
}

/// Its agent, or the coordinator, ends a host at its longest life: another would not have lived longer.
#[rstest]
#[case::told_by_its_agent(true)]
#[case::of_an_agent_that_is_silent(false)]
fn a_job_that_is_ended_by_its_host_s_longest_life_is_not_run_again(#[case] told: bool) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    let lifetime = i64::try_from(pool("linux").limits.lifetime.as_secs()).unwrap();
    tester.second = lifetime - 30;
    if told {
        tester.second = lifetime;
        tester.tell(finished(&launch, Outcome::Interrupted));
    } else {
        tester.tell(Event::AgentLost {
            launch,
            heard_at: at(tester.second),
        });
        tester.pass(30);
    }
    tester.second = lifetime + 700;
    let failed = ended(1, name.as_str(), "failure", tester.second);
    assert_eq!(watches(&tester.tell(webhook(failed))), 0);
    assert_eq!(cause(&tester, 1), None);
}

/// GitHub runs again what did not succeed: one that was cancelled goes with the one that was interrupted. It may have
/// ended long before.
#[rstest]
#[case::that_has_just_ended(0, 0)]
#[case::that_ended_long_before_the_other(9_000, 0)]
#[case::that_ended_long_before_its_run(0, 9_000)]
fn a_job_that_was_run_again_with_another_has_used_its_attempt(
    #[case] before: i64,
    #[case] after: i64,
) {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.tell(webhook(report(2)));
    let jobs = vec![
        ended(1, name.as_str(), "failure", before + 700),
        JobReport {
            runner_name: None,
            ..ended(2, "", "cancelled", 10)
        },
    ];
    tester.tell(webhook(jobs[1].clone()));
    tester.pass(before + 20);
    tester.tell(gone(&launch));
    tester.second = before + 700;
    tester.tell(webhook(jobs[0].clone()));
    tester.pass(after);
    let run = first_attempt();
    let seen = RunSeen {
        attempt: 1,
        conclusion: Some("failure".into()),
        jobs,
    };
    let changes = tester.tell(Event::RunCompleted {
        run: run.clone(),
        seen: Box::new(seen),
    });
    assert_eq!(calls(&changes), [&RerunCall::FailedJobs]);
    let answer = RerunAnswer::Started;
    tester.tell(Event::RerunAnswered { run, answer });
    tester.pass(3_700);
    for (id, name, count) in [
        (11, report(1).name, 1),
        (12, report(2).name, 1),
        (13, "that was not there before".to_owned(), 0),
    ] {
        tester.tell(webhook(JobReport {
            run_attempt: Some(2),
            name,
            ..report(id)
        }));
        assert_eq!(tester.job(id).lineage.count, count, "job {id}");
    }
}

/// The look at the run was before the newer attempt: the run has gone on since.
#[test]
fn a_newer_attempt_that_a_webhook_told_of_leaves_nothing_to_do() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    tester.second = 20;
    tester.tell(gone(&launch));
    tester.second = 700;
    let failed = ended(1, name.as_str(), "failure", 700);
    assert_eq!(watches(&tester.tell(webhook(failed.clone()))), 1);
    tester.tell(webhook(JobReport {
        run_attempt: Some(2),
        name: report(1).name,
        ..report(11)
    }));
    let seen = RunSeen {
        attempt: 1,
        conclusion: Some("failure".into()),
        jobs: vec![failed],
    };
    let changes = tester.tell(Event::RunCompleted {
        run: first_attempt(),
        seen: Box::new(seen),
    });
    assert_eq!(calls(&changes), [] as [&RerunCall; 0]);
    let left = "left to people: attempt 2 of its run exists";
    assert_eq!(rerun(&tester, 1).as_deref(), Some(left));
}

/// GitHub's own word is waited for: what counts as ended without it decides nothing.
#[test]
fn a_job_that_github_lost_sight_of_runs_again_once_it_says_how_it_ended() {
    let mut tester = rerunning();
    let (launch, name) = running(&mut tester, 1);
    for _ in 0..2 {
        tester.tell(Event::JobMissing { job: JobId(1) });
        tester.second += 60;
    }
    assert_eq!(tester.job(1).closed, Some(Closed::Deleted));
    tester.tell(gone(&launch));
    assert_eq!(cause(&tester, 1), Some(Cause::InstanceGone));
    assert_eq!(rerun(&tester, 1), None);
    tester.second = 900;
    let changes = tester.tell(webhook(ended(1, name.as_str(), "failure", 900)));
    assert_eq!(watches(&changes), 1);
}
