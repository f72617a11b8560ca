//! How often what is looked at, within what GitHub allows. Pure.
//!
//! There are three kinds of looks: at *hot* repositories (where something happened lately), at *cold* ones,
//! and at the runs that are open. If all of them fit into the pace, each is looked at once in an interval.
//! If not, each kind gets its fair share of the pace, and those of one kind take turns.

use std::time::Duration;

use super::super::limits::Standing;

/// Calls in a second at most, whatever they cost: a third of the 900 points in a minute that GitHub allows
/// for one endpoint, where a GET counts 1.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits>
const FASTEST: f64 = 5.0;
/// Calls in a second at least, so that a tight budget slows the survey and never stops it for good.
const SLOWEST: f64 = 1.0 / 60.0;
/// Calls for a look at a repository: its runs that are queued, in progress, pending and waiting.
const WHOLE_LOOK: usize = 4;
/// Calls for a look at one of many: the last two take turns.
const SHORT_LOOK: usize = 3;
/// Longest pause between two looks, whatever they cost: the pace is settled anew long before.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How much the latest call changes what is known of calls.
const FRESHNESS: f64 = 0.02;
/// What a look takes from the call to the fleet, and jobs that are left to their webhooks for a moment.
const MARGIN: Duration = Duration::from_secs(4);

/// What there is to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) hot: usize,
    pub(super) cold: usize,
    pub(super) runs: usize,
}

/// How long until the same is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intervals {
    pub(super) hot: Duration,
    pub(super) cold: Duration,
    pub(super) runs: Duration,
    /// Whether each look at a repository lists all kinds of its open runs; if not, pending and waiting ones take turns.
    pub(super) whole: bool,
}

impl Intervals {
    /// Shares a pace (calls in a second) among the looks, each of which is due once in `interval` at best.
    pub(super) fn of(load: Load, pace: f64, interval: Duration) -> Self {
        let whole = Self::with(WHOLE_LOOK, load, pace, interval);
        if [whole.hot, whole.cold, whole.runs] == [interval; 3] {
            whole
        } else {
            Self::with(SHORT_LOOK, load, pace, interval)
        }
    }

    fn with(calls_a_repository: usize, load: Load, pace: f64, interval: Duration) -> Self {
        let calls = [
            count(load.hot * calls_a_repository),
            count(load.cold * calls_a_repository),
            count(load.runs),
        ];
        let shares = shares(calls.map(|calls| calls / interval.as_secs_f64()), pace);
        let of = |kind: usize| {
            let tour = calls[kind] / shares[kind].max(SLOWEST / 3.0);
            Duration::from_secs_f64(tour).max(interval)
        };
        Self {
            hot: of(0),
            cold: of(1),
            runs: of(2),
            whole: calls_a_repository == WHOLE_LOOK,
        }
    }

    /// How long a job may wait unnoticed that no webhook tells of. Beside jobs that wait for an approval or for their
    /// turn it may take an interval more, where looks are not whole.
    pub(super) fn bound(&self) -> Duration {
        self.hot.max(self.cold).max(self.runs) + MARGIN
    }
}

/// Divides `total` among three needs so that none gets more than it needs, and those that get less get the
/// same.
fn shares(needs: [f64; 3], total: f64) -> [f64; 3] {
    let mut order = [0, 1, 2];
    order.sort_by(|a, b| needs[*a].total_cmp(&needs[*b]));
    let mut left = total;
    let mut shares = [0.0; 3];
    for (kind, others) in order.into_iter().zip([3.0, 2.0, 1.0]) {
        shares[kind] = needs[kind].min(left / others);
        left -= shares[kind];
    }
    shares
}

/// What is known of calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    /// Part of the calls that counted against the hourly limit; the others were answered 304.
    counted: f64,
    /// How long a call takes.
    seconds: f64,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            counted: 0.1,
            seconds: 0.1,
        }
    }
}

impl Calls {
    /// Some calls were made, one after the other.
    pub(super) fn note(&mut self, calls: u32, counted: bool, took: Duration) {
        let counted = if counted { 1.0 } else { 0.0 };
        let seconds = took.as_secs_f64() / f64::from(calls.max(1));
        for _ in 0..calls {
            self.counted += (counted - self.counted) * FRESHNESS;
            self.seconds += (seconds - self.seconds) * FRESHNESS;
        }
    }

    /// Calls in a second, one after the other, so that by the time the limit starts anew, `share` percent
    /// of it at most were used, by whomever: the rest is for those who launch and delete.
    pub(super) fn pace(
        &self,
        standing: Option<Standing>,
        share: u32,
        now: tokio::time::Instant,
    ) -> f64 {
        let possible = FASTEST.min(1.0 / self.seconds.max(0.001));
        let Some(standing) = standing else {
            return possible;
        };
        let kept = f64::from(standing.limit) * f64::from(100 - share.min(100)) / 100.0;
        let left = (f64::from(standing.remaining) - kept).max(0.0);
        let seconds = standing
            .resets_at
            .saturating_duration_since(now)
            .as_secs_f64();
        let allowed = left / seconds.max(60.0) / self.counted.max(0.02);
        possible.min(allowed).max(SLOWEST)
    }
}

/// How long to wait after calls that took so long, to keep to a pace.
pub(super) fn pause(calls: u32, pace: f64, took: Duration) -> Duration {
    let due = Duration::from_secs_f64(f64::from(calls) / pace.max(SLOWEST));
    due.saturating_sub(took).min(LONGEST_PAUSE)
}

/// How many repositories are hot at most: as many as can be looked at once in `interval` with a third of
/// the pace.
pub(super) fn hot_at_most(pace: f64, interval: Duration) -> usize {
    let calls = pace / 3.0 * interval.as_secs_f64();
    (1..10_000)
        .take_while(|number| count(number * SHORT_LOOK) <= calls)
        .last()
        .unwrap_or(1)
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use tokio::time::Instant;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn load(hot: usize, cold: usize, runs: usize) -> Load {
        Load { hot, cold, runs }
    }

    #[rstest]
    #[case::few(load(5, 5, 10), (10, 10, 10), 14)]
    #[case::some(load(5, 7, 10), (10, 10, 10), 14)]
    #[case::many_cold_ones(load(5, 1_000, 0), (10, 857, 10), 861)]
    #[case::many_of_all(load(5, 1_000, 1_000), (10, 1_714, 571), 1_718)]
    #[case::nothing(load(0, 0, 0), (10, 10, 10), 14)]
    fn what_does_not_fit_takes_turns_and_the_bound_says_how_long(
        #[case] load: Load,
        #[case] seconds: (u64, u64, u64),
        #[case] bound: u64,
    ) {
        let intervals = Intervals::of(load, 5.0, TEN);
        let found = [intervals.hot, intervals.cold, intervals.runs].map(|it| it.as_secs());
        assert_eq!(found, [seconds.0, seconds.1, seconds.2]);
        assert_eq!(intervals.bound().as_secs(), bound);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_leaves_the_rest_of_the_limit_to_others() {
        let now = Instant::now();
        let standing = |remaining| {
            Some(Standing {
                limit: 5_000,
                remaining,
                resets_at: now + Duration::from_secs(3_600),
            })
        };
        let all_counted = Calls {
            counted: 1.0,
            seconds: 0.01,
        };
        let pace = all_counted.pace(standing(5_000), 40, now);
        assert!((pace * 3_600.0 - 2_000.0).abs() < 1.0, "{pace}");
        assert!((all_counted.pace(standing(3_000), 40, now) - SLOWEST).abs() < 0.001);
        let mostly_free = Calls {
            counted: 0.05,
            seconds: 0.01,
        };
        assert!((mostly_free.pace(standing(5_000), 40, now) - FASTEST).abs() < 0.001);
        assert!((all_counted.pace(None, 40, now) - FASTEST).abs() < 0.001);
        let slow = Calls {
            counted: 0.05,
            seconds: 2.0,
        };
        assert!((slow.pace(None, 40, now) - 0.5).abs() < 0.001);
    }

    #[test]
    fn each_call_is_paid_for_by_a_pause_that_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(5, 0.5, second), 9 * second);
        assert_eq!(pause(1, 5.0, second), Duration::ZERO);
        assert_eq!(pause(1_000, SLOWEST, second), LONGEST_PAUSE);
    }

    #[test]
    fn each_page_of_a_list_is_a_call() {
        let (mut pages, mut calls) = (Calls::default(), Calls::default());
        pages.note(3, true, Duration::from_secs(3));
        for _ in 0..3 {
            calls.note(1, true, Duration::from_secs(1));
        }
        assert!((pages.counted - calls.counted).abs() < 1e-9);
        assert!((pages.seconds - calls.seconds).abs() < 1e-9);
    }

    #[test]
    fn hot_repositories_fit_into_their_share() {
        assert_eq!(hot_at_most(5.0, TEN), 5);
        assert_eq!(hot_at_most(0.01, TEN), 1);
    }

    proptest! {
        #[test]
        fn no_pace_is_exceeded_and_none_is_left_unused(
            hot in 0..20_usize, cold in 0..20_000_usize, runs in 0..5_000_usize, pace in 0.1..5.0_f64,
        ) {
            let intervals = Intervals::of(load(hot, cold, runs), pace, TEN);
            let rate = |calls: usize, interval: Duration| count(calls) / interval.as_secs_f64();
            let each = if intervals.whole { WHOLE_LOOK } else { SHORT_LOOK };
            let spent = rate(hot * each, intervals.hot) + rate(cold * each, intervals.cold)
                + rate(runs, intervals.runs);
            prop_assert!(spent <= pace * 1.001, "{spent} of {pace}");
            let at_best = [intervals.hot, intervals.cold, intervals.runs].iter().all(|it| *it == TEN);
            prop_assert!(at_best || spent >= pace * 0.999, "{spent} of {pace}");
            prop_assert!(at_best || !intervals.whole);
        }
    }
}
