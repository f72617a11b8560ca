//! Randomness of which nothing hangs but that others don't fall into step: jitter, and the seed of launch
//! ids. A simulation sets it, so that the same seed gives the same run.

/// A number from 0 to 1, without 1.
#[must_use]
pub fn fraction() -> f64 {
    #[cfg(test)]
    if let Some(number) = seeded::number() {
        // The upper 53 bits fill a double's mantissa.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        return (number >> 11) as f64 / (1_u64 << 53) as f64;
    }
    rand::random()
}

/// A duration from a part to a multiple of an interval.
#[must_use]
pub fn around(interval: std::time::Duration, least: f64, most: f64) -> std::time::Duration {
    interval.mul_f64(least + (most - least) * fraction())
}

/// A seed that no other start of a process has; none if the system gives no random bytes.
#[must_use]
pub fn seed() -> Option<u64> {
    #[cfg(test)]
    if let Some(number) = seeded::number() {
        return Some(number);
    }
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).ok()?;
    Some(u64::from_le_bytes(seed))
}

/// Chance that a test has set for its thread.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng as _};

    thread_local! {
        static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    }

    /// Sets it from here on.
    pub(crate) fn start(seed: u64) {
        SEEDED.set(Some(SmallRng::seed_from_u64(seed)));
    }

    pub(super) fn number() -> Option<u64> {
        SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map(RngExt::random))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_seeded_comes_again() {
        let draw = || (fraction(), seed(), around(Duration::from_secs(1), 0.5, 1.0));
        seeded::start(7);
        let first = draw();
        seeded::start(7);
        assert_eq!(draw(), first);
        assert!((0.0..1.0).contains(&first.0));
        assert!((Duration::from_millis(500)..Duration::from_secs(1)).contains(&first.2));
    }
}
