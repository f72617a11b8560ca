//! Deadlines of a host whose job sets its clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ending_tests::config;
use super::{Saved, Supervisor};
use crate::local::{Assignment, Order};
use crate::signals::Signals;
use crate::steady::Steady;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn supervisor(dir: &TempDir) -> Supervisor {
    let signals = Signals::install().unwrap();
    let (config, mark) = (config(dir.path()), dir.path().display().to_string());
    Supervisor::new(config, mark, Duration::ZERO, signals, mpsc::channel(1).1)
}

/// How long until a job would be told to stop.
fn stops_in(supervisor: &Supervisor) -> Duration {
    let now = Instant::now().into_std();
    supervisor.machine.stops_in(now).unwrap()
}

#[rstest]
#[case::ahead(HOUR)]
#[case::behind(-HOUR)]
#[tokio::test]
async fn a_job_that_sets_the_clock_moves_no_deadline(#[case] set_by: SignedDuration) {
    let dir = tempfile::tempdir().unwrap();
    let mut supervisor = supervisor(&dir);
    let lead = supervisor.config.runner_limits.interrupt_lead;
    let now = Timestamp::now() - set_by;
    supervisor.known.steady = Some(Steady::at(now));
    let deadline = Some(now + HOUR / 2);
    let expected = Duration::try_from(HOUR / 2).unwrap() - lead;
    // A new session says it again.
    for _ in 0..2 {
        supervisor.on_order(Order::Drain { deadline }).await;
        let stops_in = stops_in(&supervisor);
        let early = expected.saturating_sub(stops_in);
        assert!(stops_in <= expected && early < SOON, "{stops_in:?}");
    }
}

#[tokio::test]
async fn the_time_is_kept_from_before_the_job_and_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = supervisor(&dir);
    assert_eq!(first.known.steady, None);
    let assignment = Assignment {
        runner_name: "runner-1".to_owned(),
        jit_config: SecretString::from("not usable"),
    };
    first.on_order(Order::Assign(assignment)).await;
    assert!(first.known.steady.is_some());

    let steady = Some(Steady::at(Timestamp::now() - HOUR));
    let saved = Saved {
        steady,
        ..Saved::default()
    };
    let mut second = supervisor(&dir);
    second.restore(saved, Duration::ZERO);
    assert_eq!(second.known.steady, steady);
}
