//! Waits between tries: exponential, with full jitter, so that many agents that lost one coordinator
//! don't come back at once.
//!
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>

use std::time::Duration;

use rand::RngExt as _;

/// The waits of one series of tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of up to `base`, doubled with each failure, never above `cap`.
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// The wait after one more failure: anything from nothing to the present ceiling.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        up_to(ceiling)
    }

    /// Begins the series again after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(&self) -> Duration {
        2_u32
            .checked_pow(self.failures)
            .and_then(|factor| self.base.checked_mul(factor))
            .map_or(self.cap, |wait| wait.min(self.cap))
    }
}

/// A random time from nothing to `ceiling`.
pub(crate) fn up_to(ceiling: Duration) -> Duration {
    rand::rng().random_range(Duration::ZERO..=ceiling)
}

/// `mean`, less or more by up to a fifth.
pub(crate) fn around(mean: Duration) -> Duration {
    mean - mean / 5 + up_to(mean / 5 * 2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn the_ceiling_doubles_to_the_cap_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut ceilings = Vec::new();
        for _ in 0..80 {
            ceilings.push(backoff.ceiling());
            let ceiling = backoff.ceiling();
            assert!(backoff.next() <= ceiling);
        }
        assert_eq!(ceilings[1], Duration::from_millis(200));
        assert_eq!(ceilings[5], Duration::from_millis(3200));
        assert!(ceilings[6..].iter().all(|c| *c == Duration::from_secs(5)));
        backoff.reset();
        assert_eq!(backoff.ceiling(), Duration::from_millis(100));
    }
}
