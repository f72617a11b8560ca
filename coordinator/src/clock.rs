//! What time it is for all that is decided and stored, and by which certificates are issued and judged. What
//! others check by their own time goes by the system's: signatures for AWS, and tokens for GitHub.
//!
//! The system's clock may jump, and every limit would jump with it: all hosts would have reached their
//! lifetime, or none for a day. So this clock starts with the system's and goes on by itself; it follows the
//! system's, but gains or loses a tenth at most.

use std::sync::{Mutex, OnceLock, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Set in a process whose time follows tokio's.
static FOLLOWED: OnceLock<(Timestamp, Instant)> = OnceLock::new();
/// The clock of all other processes.
static STEADY: Mutex<Option<Steady<std::time::Instant>>> = Mutex::new(None);
/// A part of the time that passes by which this clock may be faster or slower.
const LEEWAY: i32 = 10;

/// The time: steady, unless this process follows tokio's.
#[must_use]
pub fn now() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    match FOLLOWED.get() {
        // Held for a moment, and whole at any.
        None => STEADY
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| Steady::new(Timestamp::now(), std::time::Instant::now()))
            .read(Timestamp::now(), std::time::Instant::now()),
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

/// A clock that doesn't jump.
#[derive(Clone, Copy, Debug)]
struct Steady<I> {
    shown: Timestamp,
    at: I,
}

impl<I: Copy + std::ops::Sub<Output = std::time::Duration>> Steady<I> {
    fn new(shown: Timestamp, at: I) -> Self {
        Self { shown, at }
    }

    /// What it shows, given what the system's clock shows at an instant.
    fn read(&mut self, system: Timestamp, at: I) -> Timestamp {
        let passed = SignedDuration::try_from(at - self.at).unwrap_or(SignedDuration::ZERO);
        let most = passed / LEEWAY;
        let expected = self.shown.saturating_add(passed).unwrap_or(Timestamp::MAX);
        let off = system.duration_since(expected).clamp(-most, most);
        *self = Self::new(expected.saturating_add(off).unwrap_or(expected), at);
        self.shown
    }
}

/// The clock of a simulated machine, which may be wrong and may jump; one for each thread.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    use super::{Instant, SignedDuration, Steady, Timestamp};

    thread_local! {
        static SYSTEM: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
        static PROCESS: Cell<Option<Steady<Instant>>> = const { Cell::new(None) };
    }

    /// Starts the machine's clock at a time; it goes as tokio's.
    pub(crate) fn start(at: Timestamp) {
        SYSTEM.set(Some((at, Instant::now())));
        restart();
    }

    /// Lets it jump.
    pub(crate) fn jump(by: SignedDuration) {
        if let Some((base, since)) = SYSTEM.get() {
            SYSTEM.set(Some((base.saturating_add(by).unwrap_or(base), since)));
        }
    }

    /// A process starts.
    pub(crate) fn restart() {
        PROCESS.set(system().map(|system| Steady::new(system, Instant::now())));
    }

    fn system() -> Option<Timestamp> {
        SYSTEM.get().map(|(base, since)| super::after(base, since))
    }

    pub(super) fn now() -> Option<Timestamp> {
        let mut process = PROCESS.get()?;
        let now = process.read(system()?, Instant::now());
        PROCESS.set(Some(process));
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn it_goes_as_the_system_s_clock_does() {
        let began = Instant::now();
        let mut clock = Steady::new(at(0), began);
        for second in [1, 2, 60, 7 * HOUR] {
            let instant = began + Duration::from_secs(second.unsigned_abs());
            assert_eq!(clock.read(at(second), instant), at(second));
        }
    }

    #[test]
    fn a_jump_is_followed_slowly_and_to_the_end() {
        for jump in [HOUR, -HOUR] {
            let began = Instant::now();
            let mut clock = Steady::new(at(0), began);
            let mut shown = Vec::new();
            for minute in 1..=700 {
                let instant = began + Duration::from_secs(60 * minute);
                let minutes = 60 * i64::try_from(minute).unwrap();
                shown.push(clock.read(at(jump + minutes), instant));
            }
            assert_eq!(shown[0], at(60 + 6 * jump.signum()));
            assert_eq!(shown[699], at(jump + 60 * 700));
        }
    }

    proptest! {
        #[test]
        fn it_never_goes_back_nor_faster_than_it_may(
            readings in prop::collection::vec((0..10_000_u64, -100_000..100_000_i64), 1..50),
        ) {
            let mut instant = Instant::now();
            let mut clock = Steady::new(at(0), instant);
            let mut before = at(0);
            for (passed, system) in readings {
                instant += Duration::from_millis(passed);
                let now = clock.read(at(system), instant);
                let shown = Duration::try_from(now.duration_since(before));
                prop_assert!(shown.is_ok(), "{before} and then {now}");
                let shown = shown.unwrap_or_default();
                let passed = Duration::from_millis(passed);
                prop_assert!(shown >= passed.mul_f64(0.899) && shown <= passed.mul_f64(1.101));
                before = now;
            }
        }
    }
}
