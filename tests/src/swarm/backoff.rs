//! Waits between tries as the agent has them (`agent/src/backoff.rs`): exponential, with full jitter.

use std::time::Duration;

use rand::rngs::StdRng;

use super::plan::up_to;

/// The waits of one series of tries.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of up to `base`, doubled with each failure, never above `cap`.
    pub(super) const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// The wait after one more failure.
    pub(super) fn next(&mut self, random: &mut StdRng) -> Duration {
        let doubled = 2_u32
            .checked_pow(self.failures)
            .and_then(|factor| self.base.checked_mul(factor));
        self.failures = self.failures.saturating_add(1);
        up_to(random, doubled.map_or(self.cap, |wait| wait.min(self.cap)))
    }

    /// Begins the series again after a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}
