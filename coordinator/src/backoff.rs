//! The one back-off: exponential with full jitter, for every retry of the coordinator.

use std::time::Duration;

use crate::chance;

/// Waits between tries: a random time up to a bound that doubles.
///
/// Full jitter spreads callers that failed together, see
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Starts with waits of up to `base`, and ends with waits of up to `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            tries: 0,
        }
    }

    /// The wait before the next try.
    #[must_use = "it only tells how long to wait"]
    pub fn wait(&mut self) -> Duration {
        let bound = self
            .base
            .saturating_mul(1 << self.tries.min(20))
            .min(self.cap);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(chance::fraction())
    }

    /// The wait before the next try, if the other side asked for at least `floor`.
    #[must_use = "it only tells how long to wait"]
    pub fn wait_at_least(&mut self, floor: Duration) -> Duration {
        floor.saturating_add(self.wait())
    }

    /// How often it was asked.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_never_beyond() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let longest = (0..200).map(|_| backoff.wait()).max();
        assert!(longest.is_some_and(|wait| wait <= Duration::from_secs(2)));
        assert!(longest.is_some_and(|wait| wait > Duration::from_secs(1)));
        assert!(
            Backoff::new(Duration::from_millis(100), Duration::from_secs(2)).wait()
                <= Duration::from_millis(100)
        );
    }

    #[test]
    fn a_floor_is_kept() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        assert!(backoff.wait_at_least(Duration::from_secs(7)) >= Duration::from_secs(7));
    }
}
