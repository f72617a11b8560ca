//! What time it is for the fake.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What time it is for the fake.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's.
    System,
    /// Tokio's: the system's too, until a test pauses or advances it.
    Tokio {
        /// The time when the clock was made.
        base: Timestamp,
        /// The same moment, for tokio.
        since: tokio::time::Instant,
    },
    /// Stands still.
    At(Timestamp),
}

impl Clock {
    /// Tokio's clock, from the system's time on.
    pub fn tokio() -> Self {
        Self::Tokio {
            base: Timestamp::now(),
            since: tokio::time::Instant::now(),
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { base, since } => after(*base, since.elapsed()),
            Self::At(time) => *time,
        }
    }
}

/// `time` and so much more; stops at the end of time.
pub(super) fn after(time: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| time.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}
