//! Jobs of hosts that nothing was heard of: cut short only if GitHub gave them up.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{cause, ended, gone, look, rerun, rerunning, running, told, watches, webhook};
use muster_core::{Cause, Event, JobReport};
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
    tester.tell(Event::AgentLost { launch });
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
