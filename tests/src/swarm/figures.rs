//! What a swarm measures.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// The longest time that is told apart, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;
/// Digits that are kept of each.
const DIGITS: u8 = 3;

/// Times of one kind. Printed as count, percentiles and the longest.
#[derive(Debug)]
pub(super) struct Times(Mutex<Histogram<u64>>);

impl Times {
    fn new() -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS)?;
        Ok(Self(Mutex::new(histogram)))
    }

    /// Those of a list.
    pub(super) fn of(times: impl IntoIterator<Item = Duration>) -> anyhow::Result<Self> {
        let all = Self::new()?;
        times.into_iter().for_each(|time| all.add(time));
        Ok(all)
    }

    pub(super) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST);
        self.lock().saturating_record(micros.max(1));
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.lock().reset();
    }

    /// The time that this share of all is within.
    pub(super) fn at(&self, share: f64) -> Duration {
        Duration::from_micros(self.lock().value_at_quantile(share))
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.lock().len();
        if count == 0 {
            return f.write_str("none");
        }
        write!(
            f,
            "{count} times, p50 {}, p99 {}, longest {}",
            short(self.at(0.5)),
            short(self.at(0.99)),
            short(self.at(1.0))
        )
    }
}

/// A time with three digits or so.
pub(super) fn short(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1_000.0;
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        ..1_000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1_000.0),
    }
}

/// All that agents measure.
#[derive(Debug)]
pub(super) struct Figures {
    /// From the first try of an enrolment to its certificate.
    pub(super) enrolment: Times,
    /// From the hello of an agent to its assignment: the registration with GitHub is in it.
    pub(super) assignment: Times,
    /// From the start of a connection to the coordinator's first word on its stream.
    pub(super) stream: Times,
    /// How late heartbeats were handed to their streams.
    pub(super) lag: Times,
    pub(super) heartbeats: AtomicU64,
    /// Heartbeats that found their stream's queue full.
    pub(super) left_out: AtomicU64,
    pub(super) renewals: AtomicU64,
    /// Why streams ended and enrolments failed.
    ends: Mutex<BTreeMap<String, u64>>,
    /// When the first agent began to enrol, and when the last one had.
    enrolled: Mutex<Option<(Instant, Instant)>>,
}

impl Figures {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            enrolment: Times::new()?,
            assignment: Times::new()?,
            stream: Times::new()?,
            lag: Times::new()?,
            heartbeats: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            ends: Mutex::default(),
            enrolled: Mutex::default(),
        })
    }

    /// Counts one more.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// An agent that began then has enrolled now.
    pub(super) fn enrolled(&self, began: Instant) {
        self.enrolment.add(began.elapsed());
        let mut span = lock(&self.enrolled);
        let first = span.map_or(began, |(first, _)| first.min(began));
        *span = Some((first, Instant::now()));
    }

    /// From the first agent's beginning to the last one's certificate.
    pub(super) fn enrolling(&self) -> Duration {
        lock(&self.enrolled).map_or(Duration::ZERO, |(first, last)| last - first)
    }

    /// Counts an end.
    pub(super) fn ended(&self, why: impl Into<String>) {
        *lock(&self.ends).entry(why.into()).or_default() += 1;
    }

    /// All ends since the last call, the most frequent first.
    pub(super) fn take_ends(&self) -> Vec<(String, u64)> {
        let ends = std::mem::take(&mut *lock(&self.ends));
        let mut ends: Vec<_> = ends.into_iter().collect();
        ends.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        ends
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_by_their_percentiles() {
        let times = Times::of((1..=100).map(Duration::from_millis)).unwrap();
        assert_eq!(
            times.to_string(),
            "100 times, p50 50 ms, p99 99 ms, longest 100 ms"
        );
        assert_eq!(Times::of([]).unwrap().to_string(), "none");
        assert_eq!(short(Duration::from_micros(1_500)), "1.50 ms");
        assert_eq!(short(Duration::from_millis(2_500)), "2.50 s");
    }
}
