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
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    match FOLLOWED.get() {
        None => Timestamp::now(),
        Some((base, since)) => after(*base, *since),
    }
}

/// From here on this process takes its time from tokio, where a test can let it run faster. `base` is
/// the time at `since`.
pub fn follow_tokio(base: Timestamp, since: Instant) {
    // Only the first call counts, as time must not jump.
    let _ = FOLLOWED.set((base, since));
}

fn after(base: Timestamp, since: Instant) -> Timestamp {
    SignedDuration::try_from(since.elapsed())
        .ok()
        .and_then(|passed| base.checked_add(passed).ok())
        .unwrap_or(Timestamp::MAX)
}

/// The clock of a simulated machine, which may be wrong and may jump; one for each thread.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    use super::{Instant, SignedDuration, Timestamp};

    thread_local! {
        static CLOCK: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
    }

    /// Starts the clock at a time; it goes as tokio's.
    pub(crate) fn start(at: Timestamp) {
        CLOCK.set(Some((at, Instant::now())));
    }

    /// Lets it jump.
    pub(crate) fn jump(by: SignedDuration) {
        if let Some((base, since)) = CLOCK.get() {
            CLOCK.set(Some((base.saturating_add(by).unwrap_or(base), since)));
        }
    }

    pub(super) fn now() -> Option<Timestamp> {
        CLOCK.get().map(|(base, since)| super::after(base, since))
    }
}
