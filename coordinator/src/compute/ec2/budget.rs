//! EC2's token buckets, kept on our side: no call is made to be refused.
//!
//! <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>. Each API has its own bucket,
//! for each account and region, and all that uses the account draws from it; so a refusal empties ours.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One bucket. Callers wait their turn in it.
#[derive(Debug)]
pub(super) struct Budget {
    most: f64,
    per_second: f64,
    // Held for a few sums, never across a wait.
    level: Mutex<Level>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Below zero if callers wait for what will be there.
    tokens: f64,
    at: Instant,
}

/// The buckets of one account and region.
#[derive(Debug)]
pub(super) struct Budgets {
    /// CreateFleet is not listed: it falls under "mutating".
    pub(super) create_fleet: Budget,
    /// TerminateInstances.
    pub(super) terminate: Budget,
    /// Describe calls with filters or pages.
    pub(super) describe: Budget,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self {
            create_fleet: Budget::within(50.0, 5.0),
            terminate: Budget::within(100.0, 5.0),
            describe: Budget::within(100.0, 20.0),
        }
    }
}

impl Budget {
    /// A budget within a bucket of EC2's. What comes in in a second is left out: a call that is late on
    /// its way reaches EC2 just before the next one.
    fn within(most: f64, per_second: f64) -> Self {
        Self::new(most - per_second, per_second)
    }

    fn new(most: f64, per_second: f64) -> Self {
        let level = Level {
            tokens: most,
            at: Instant::now(),
        };
        Self {
            most,
            per_second,
            level: Mutex::new(level),
        }
    }

    /// Waits until a call may be made. A caller that gives up has still spent it.
    pub(super) async fn spend(&self) {
        let wait = {
            let mut level = self.level();
            level.tokens -= 1.0;
            Duration::try_from_secs_f64(-level.tokens / self.per_second).unwrap_or_default()
        };
        tokio::time::sleep(wait).await;
    }

    /// EC2 refused a call: whatever we thought, the bucket is empty.
    pub(super) fn refused(&self) {
        let mut level = self.level();
        level.tokens = level.tokens.min(0.0);
    }

    fn level(&self) -> std::sync::MutexGuard<'_, Level> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(level.at).as_secs_f64() * self.per_second;
        *level = Level {
            tokens: (level.tokens + gained).min(self.most),
            at: now,
        };
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let budget = Budget::new(50.0, 5.0);
        let began = Instant::now();
        for _ in 0..50 {
            budget.spend().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            budget.spend().await;
        }
        let took = began.elapsed();
        assert!((1_990..=2_100).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_at_the_same_time_wait_one_after_the_other() {
        let budget = Budget::new(1.0, 5.0);
        let began = Instant::now();
        futures::future::join_all((0..6).map(|_| budget.spend())).await;
        let took = began.elapsed();
        assert!((990..=1_100).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_empties_it() {
        let budget = Budget::new(50.0, 5.0);
        budget.refused();
        let began = Instant::now();
        budget.spend().await;
        assert!(began.elapsed() >= Duration::from_millis(199));
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let began = Instant::now();
        for _ in 0..50 {
            budget.spend().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "it fills up again");
    }
}
