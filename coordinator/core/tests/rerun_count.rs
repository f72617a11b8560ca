//! However a run goes, no job of it runs again more often than its pool says.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{
    Tester, calls, ended, finished, first_attempt, gone, pool, report, restart, started, webhook,
};
use muster_core::{
    Event, JobReport, Market, Outcome, RerunAnswer, RerunCall, RerunPolicy, RunAttempt, RunSeen,
};
use proptest::prelude::*;

/// How a job ends in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Success,
    Failure,
    HostGone,
    Cancelled,
}

fn end() -> impl Strategy<Value = End> {
    // Mostly the host goes: that is what is tried.
    prop_oneof![
        1 => Just(End::Success),
        1 => Just(End::Failure),
        6 => Just(End::HostGone),
        1 => Just(End::Cancelled),
    ]
}

/// Plays one attempt of one job to its end. Answers GitHub's last word on it.
fn play(tester: &mut Tester, id: i64, name: &str, attempt: u32, end: End) -> JobReport {
    let of = |report: JobReport| JobReport {
        name: name.to_owned(),
        run_attempt: Some(attempt),
        ..report
    };
    let before = tester.launches("linux");
    tester.tell(webhook(of(report(id))));
    let mut after = tester.launches("linux").into_iter().rev();
    let launch = after.find(|launch| !before.contains(launch)).unwrap();
    let runner = tester.listens(&launch);
    tester.tell(webhook(of(started(id, runner.as_str(), 9))));
    let conclusion = match end {
        End::Success => "success",
        End::Failure | End::HostGone => "failure",
        End::Cancelled => "cancelled",
    };
    tester.tell(match end {
        End::HostGone => gone(&launch),
        End::Success => finished(&launch, Outcome::Succeeded),
        End::Failure => finished(&launch, Outcome::Failed),
        End::Cancelled => finished(&launch, Outcome::Canceled),
    });
    // GitHub gives a job up ten minutes after its host went.
    let second = if end == End::HostGone { 610 } else { 20 };
    let last = of(ended(id, runner.as_str(), conclusion, second));
    tester.tell(webhook(last.clone()));
    tester.tell(gone(&launch));
    last
}

proptest! {
    #[test]
    fn no_job_runs_again_more_often_than_its_pool_says(
        attempts in 1..3_u32,
        script in prop::collection::vec((end(), end(), any::<bool>(), any::<bool>()), 1..6),
    ) {
        let mut linux = pool("linux");
        linux.max = 20;
        linux.rerun = Some(RerunPolicy { attempts, market: Some(Market::OnDemand) });
        let mut tester = Tester::new(vec![linux]);
        let mut counts = [0; 2];
        let mut due = vec![0, 1];
        for (attempt, (one, two, crash, newer)) in (1..).zip(script) {
            let mut jobs = Vec::new();
            for which in due.drain(..) {
                let id = i64::from(attempt) * 10 + i64::try_from(which).unwrap();
                let name = format!("job {which}");
                jobs.push(play(&mut tester, id, &name, attempt, [one, two][which]));
            }
            let run = RunAttempt { attempt, ..first_attempt() };
            let cancelled = jobs.iter().any(|job| job.conclusion.as_deref() == Some("cancelled"));
            let conclusion = if cancelled { "cancelled" } else { "failure" };
            let seen = RunSeen {
                attempt,
                conclusion: Some(conclusion.into()),
                jobs: jobs.clone(),
            };
            let completed = Event::RunCompleted { run: run.clone(), seen: Box::new(seen) };
            let first = tester.tell(completed.clone());
            if crash {
                restart(&mut tester);
            }
            let again = tester.tell(completed);
            prop_assert_eq!(calls(&again), [] as [&RerunCall; 0], "asked twice");
            let Some(call) = calls(&first).first().map(|call| (*call).clone()) else { break };
            prop_assert!(!cancelled);
            for job in &jobs {
                let which = usize::from(job.name == "job 1");
                let asked = match &call {
                    RerunCall::Job(id) => *id == job.id,
                    RerunCall::FailedJobs => job.conclusion.as_deref() == Some("failure"),
                };
                if asked {
                    prop_assert_eq!([one, two][which], End::HostGone, "what failed by itself");
                    counts[which] += 1;
                    prop_assert!(counts[which] <= attempts, "{} times", counts[which]);
                    due.push(which);
                }
            }
            let answer = if newer { RerunAnswer::Newer(attempt + 1) } else { RerunAnswer::Started };
            tester.tell(Event::RerunAnswered { run, answer });
            if due.is_empty() { break }
        }
    }
}
