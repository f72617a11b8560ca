//! A time that a job can't set.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use crate::boot::since_boot;

/// What the system's clock showed once, and what has passed since by the clock of this boot. The coordinator's
/// certificate is judged by it, and how far a deadline is: a job may set the system's clock, and its host must not be
/// cut off for it, nor end too early or too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Steady {
    shown: Timestamp,
    since_boot: Duration,
}

impl Steady {
    /// Starts with the system's time as it is now.
    pub(crate) fn start() -> Self {
        Self::at(Timestamp::now())
    }

    /// Starts with this time.
    pub(crate) fn at(shown: Timestamp) -> Self {
        Self {
            shown,
            since_boot: since_boot(),
        }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = since_boot().saturating_sub(self.since_boot);
        let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::ZERO);
        self.shown.saturating_add(passed).unwrap_or(self.shown)
    }
}

impl TimeProvider for Steady {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::Steady;

    #[test]
    fn it_goes_on_from_where_it_started_also_in_another_process() {
        let start = Timestamp::from_second(1_000_000_000).unwrap();
        let mut steady = Steady::at(start);
        steady.since_boot = steady.since_boot.saturating_sub(Duration::from_millis(10));
        let text = serde_json::to_string(&steady).unwrap();
        let steady: Steady = serde_json::from_str(&text).unwrap();
        let passed = steady.now().duration_since(start).as_millis();
        assert!((10..10_000).contains(&passed), "{passed} ms");
    }
}
