use proptest::prelude::*;
use rstest::rstest;

use super::*;

const RULES: CanaryRules = CanaryRules {
    share: 10,
    least: 20,
    margin: 10,
};

fn trial() -> Trial {
    Trial::new("ami-new".into(), Some("ami-old".into()), 0)
}

fn tally(number: u32, good: u32, failed: u32) -> Tally {
    Tally {
        number,
        launches: good + failed,
        good,
        failed,
    }
}

#[test]
fn every_tenth_launch_takes_the_canary() {
    let mut trial = trial();
    let taken: Vec<usize> = (1..=40).filter(|_| trial.take(RULES).canary).collect();
    assert_eq!(taken, [10, 20, 30, 40]);
    assert_eq!((trial.canary.launches, trial.own.launches), (4, 36));
}

#[test]
fn a_stopped_canary_takes_none() {
    let mut trial = trial();
    trial.stopped = Some(Stopped {
        at: Timestamp::UNIX_EPOCH,
        reason: "test".to_owned(),
    });
    assert!((0..100).all(|_| !trial.take(RULES).canary));
    assert_eq!(trial.own.launches, 100);
}

#[rstest]
#[case::too_few_are_known((0, 19), (100, 0), false)]
#[case::all_fail((0, 20), (100, 0), true)]
#[case::as_the_own((15, 5), (75, 25), false)]
#[case::at_the_margin((18, 2), (100, 0), false)]
#[case::over_the_margin((17, 3), (100, 0), true)]
#[case::over_the_margin_beside_one_that_fails((13, 7), (75, 25), false)]
#[case::well_over_it((12, 8), (75, 25), true)]
#[case::nothing_to_compare_with((17, 3), (19, 0), false)]
#[case::enough_to_compare_with((17, 3), (20, 0), true)]
#[case::nothing_ever_worked((0, 20), (0, 0), true)]
#[case::better((20, 0), (50, 50), false)]
fn a_canary_that_fails_more_often_by_more_than_the_margin_is_stopped(
    #[case] canary: (u32, u32),
    #[case] own: (u32, u32),
    #[case] stopped: bool,
) {
    let mut trial = trial();
    trial.canary = tally(1, canary.0, canary.1);
    trial.own = tally(2, own.0, own.1);
    assert_eq!(trial.verdict(RULES).is_some(), stopped, "{trial:?}");
}

#[test]
fn the_reason_has_the_figures() {
    let mut trial = trial();
    trial.canary = tally(1, 12, 8);
    trial.own = tally(2, 178, 2);
    assert_eq!(
        trial.verdict(RULES).unwrap(),
        "8 of 20 launches of ami-new failed, and 2 of 180 of the pool's own image: more than 10 in 100 more"
    );
}

#[test]
fn a_launch_counts_once_and_in_its_own_tally() {
    let mut trial = trial();
    let mut part = trial.take(RULES);
    trial.note(&part, Sign::Good);
    part.sign = Some(Sign::Good);
    assert_eq!((trial.own.good, trial.own.failed), (1, 0));
    trial.note(&part, Sign::Failed);
    part.sign = Some(Sign::Failed);
    assert_eq!((trial.own.good, trial.own.failed), (0, 1));
    trial.own = Tally::new(7);
    trial.note(&part, Sign::Failed);
    assert_eq!(trial.own, Tally::new(7), "it was decided under another");
}

proptest! {
    /// Whatever the share is, and if it changes on the way.
    #[test]
    fn the_share_is_exact(shares in prop::collection::vec((1u32..=50, 0usize..200), 1..5)) {
        let mut trial = trial();
        let (mut owed, mut taken) = (0, 0);
        let mut last = false;
        for (share, launches) in shares {
            for _ in 0..launches {
                let rules = CanaryRules { share, ..RULES };
                let canary = trial.take(rules).canary;
                prop_assert!(!(canary && last), "two in a row");
                last = canary;
                owed += share;
                taken += u32::from(canary);
                prop_assert_eq!(taken, owed / WHOLE);
            }
        }
    }
}
