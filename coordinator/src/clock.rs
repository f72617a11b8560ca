//! What time it is for all that is decided and stored. Certificates and tokens, which others check, go by
//! the system's time in any case.

use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Set in a process whose time follows tokio's.
static FOLLOWED: OnceLock<(Timestamp, Instant)> = OnceLock::new();

/// The time: the system's, unless this process follows tokio's.
#[must_use]
pub fn now() -> Timestamp {
    match FOLLOWED.get() {
        None => Timestamp::now(),
        Some((base, since)) => SignedDuration::try_from(since.elapsed())
            .ok()
            .and_then(|passed| base.checked_add(passed).ok())
            .unwrap_or(Timestamp::MAX),
    }
}

/// From here on this process takes its time from tokio, where a test can let it run faster. `base` is
/// the time at `since`.
pub fn follow_tokio(base: Timestamp, since: Instant) {
    // Only the first call counts, as time must not jump.
    let _ = FOLLOWED.set((base, since));
}
