//! What is said of a runner that is in trouble and goes on.

use std::time::Duration;

use muster_proto::v1::TroubleKind;

use super::console::ConsoleLine;
use super::machine::{Action, Input};
use super::machine_tests::{Bench, counted, running};
use super::perflog::Counter::{JobCancelled, JobReceived, RenewalFailing, RenewalRecovered};

/// The kinds of trouble that these inputs lead to.
fn troubles(inputs: impl IntoIterator<Item = Input>) -> Vec<TroubleKind> {
    let mut bench = Bench::new();
    let mut kinds = Vec::new();
    for input in inputs {
        for action in bench.give(input) {
            if let Action::Trouble { kind, detail } = action {
                assert!(!detail.is_empty());
                kinds.push(kind);
            }
        }
    }
    kinds
}

#[test]
fn trouble_is_said_once_per_streak() {
    let error = |text: &str| Input::Console(ConsoleLine::ConnectError(text.into()));
    let conflict = || Input::Console(ConsoleLine::SessionConflict);
    let reconnected = || Input::Console(ConsoleLine::Reconnected);
    let said = troubles([
        Input::Started,
        conflict(),
        error("Error: Conflict"),
        conflict(),
        reconnected(),
        conflict(),
        Input::Console(ConsoleLine::Listening),
        error("time-out"),
        error("time-out"),
        reconnected(),
        error("time-out"),
        Input::Console(ConsoleLine::ClockSkew("skew".into())),
        Input::Counter(RenewalFailing),
        Input::Counter(RenewalFailing),
        Input::Counter(RenewalRecovered),
        Input::Counter(RenewalFailing),
    ]);
    assert_eq!(
        said,
        [
            TroubleKind::Conflict,
            TroubleKind::Conflict,
            TroubleKind::Connection,
            TroubleKind::Connection,
            TroubleKind::Renewal,
            TroubleKind::Renewal,
        ]
    );
}

#[test]
fn cancellations_are_a_storm_only_if_they_come_fast() {
    let storm = |count: usize| {
        let cancelled = std::iter::repeat_n(Input::Counter(JobCancelled), count);
        troubles(running().into_iter().chain(cancelled))
    };
    assert_eq!(storm(9), []);
    assert_eq!(storm(200), [TroubleKind::CancellationStorm]);

    let mut bench = Bench::after(running());
    for _ in 0..30 {
        bench.now += Duration::from_secs(10);
        assert_eq!(bench.give(Input::Counter(JobCancelled)), []);
    }
}

#[test]
fn a_slow_setup_is_said_and_ends_nothing() {
    let mut bench = Bench::after(counted(&[JobReceived], &["b"]));
    let done = bench.run_to(100_000);
    let [(600, Action::Trouble { kind, detail })] = done.as_slice() else {
        panic!("{done:?}")
    };
    assert_eq!(*kind, TroubleKind::SlowSetup);
    assert!(detail.contains("10 min"), "{detail}");
    assert_eq!(bench.machine.next_deadline(), None);
}
