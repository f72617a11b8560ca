//! Launches that EC2 was too busy for: they are asked for again, later each time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::compute::ec2::batch::Alike;

/// Waits between two calls.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// All that rests.
#[derive(Debug, Default)]
pub(super) struct Resting(BTreeMap<Alike, Rest>);

#[derive(Debug)]
struct Rest {
    backoff: Backoff,
    until: Instant,
}

impl Resting {
    /// EC2 was too busy; longer than the last time, if that was just before.
    pub(super) fn rest(&mut self, key: Alike) {
        let now = Instant::now();
        self.0.retain(|_, rest| rest.until + LONGEST_WAIT > now);
        let rest = self.0.entry(key).or_insert_with(|| Rest {
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            until: now,
        });
        rest.until = now + rest.backoff.wait();
    }

    /// EC2 has answered.
    pub(super) fn wake(&mut self, key: &Alike) {
        self.0.remove(key);
    }

    /// `at`, or when the rest is over if that is later.
    pub(super) fn at_least(&self, key: &Alike, at: Instant) -> Instant {
        self.0.get(key).map_or(at, |rest| at.max(rest.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pool: &str) -> Alike {
        Alike {
            pool: pool.into(),
            shape: muster_core::Shape::default(),
            canary: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_ec2_is_too_busy_for_waits_longer_each_time_until_it_answers() {
        let mut resting = Resting::default();
        let (key, other) = (of("linux"), of("arm"));
        let now = Instant::now();
        let longest = |resting: &mut Resting, times| {
            let waits = (0..times).map(|_| {
                resting.rest(key.clone());
                resting.at_least(&key, now) - now
            });
            waits.max().unwrap()
        };
        assert!(longest(&mut resting, 1) <= FIRST_WAIT);
        let later = longest(&mut resting, 200);
        assert!(FIRST_WAIT < later && later <= LONGEST_WAIT, "{later:?}");
        assert_eq!(resting.at_least(&other, now), now);
        resting.wake(&key);
        assert_eq!(resting.at_least(&key, now), now);
        assert!(longest(&mut resting, 1) <= FIRST_WAIT, "from the start");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_any_more_is_forgotten() {
        let mut resting = Resting::default();
        resting.rest(of("linux"));
        tokio::time::advance(2 * LONGEST_WAIT).await;
        resting.rest(of("arm"));
        assert_eq!(resting.0.len(), 1);
    }
}
