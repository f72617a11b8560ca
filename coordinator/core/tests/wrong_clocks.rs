//! A start takes the system's time as it is. Where that was wrong, it does no harm once it is right.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod kit;

use kit::{Tester, look, pool, report, webhook};
use muster_core::{Closed, Event, Fleet, LaunchFailure, Stored};
use rstest::rstest;

#[test]
fn a_job_that_seemed_too_old_is_served_once_github_was_asked() {
    let mut tester = Tester::new(vec![pool("linux")]);
    tester.tell(webhook(report(1)));
    tester.pass(26 * 3_600);
    assert_eq!(tester.job(1).closed, Some(Closed::Expired));
    tester.second = 60;
    tester.tell(look(report(1)));
    assert_eq!((tester.job(1).closed, tester.queued("linux")), (None, 1));
}

/// Some jobs hang at GitHub for ever: each look would launch an instance for them.
#[test]
fn a_job_that_github_calls_too_old_as_well_stays_closed() {
    let mut tester = Tester::new(vec![pool("linux")]);
    tester.tell(webhook(report(1)));
    tester.pass(26 * 3_600);
    tester.tell(look(report(1)));
    assert_eq!(tester.job(1).closed, Some(Closed::Expired));
    assert_eq!(tester.queued("linux"), 0);
}

#[rstest]
#[case::of_a_pool(LaunchFailure::Permanent)]
#[case::of_one_size(LaunchFailure::Unfit)]
fn nothing_is_held_back_for_longer_than_it_would_be_now(#[case] failure: LaunchFailure) {
    let mut tester = Tester::new(vec![pool("linux")]);
    tester.second = 3 * 3_600;
    tester.tell(look(report(1)));
    let launch = tester.launches("linux").pop().unwrap();
    tester.tell(Event::LaunchFailed {
        launch,
        failure,
        detail: "as a test wants it".into(),
    });
    let stored = Stored {
        jobs: tester.fleet.jobs().cloned().collect(),
        runners: tester.fleet.runners().cloned().collect(),
        pools: [("linux".into(), tester.fleet.pool_state(&"linux".into()))].into(),
        ..Stored::default()
    };
    let before = tester.launches("linux").len();
    tester.fleet = Fleet::restore(tester.spec.clone(), stored, 2);
    tester.second = 0;
    tester.tell(Event::Restarted);
    assert_eq!(tester.launches("linux").len(), before, "it is held back");
    tester.pass(301);
    assert!(tester.launches("linux").len() > before);
}
