//! How often each launch may do something. Its agent does so now and then; more often is an agent whose
//! answers are lost, or somebody who took its host over.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::LaunchId;
use tokio::time::Instant;

/// Launches that are remembered before those are forgotten that have their whole ration again.
const REMEMBERED: usize = 4_096;

/// The rations of all launches.
#[derive(Debug)]
pub(super) struct Rations {
    /// How often one after the other.
    burst: u32,
    /// Time from one to the next, once the first ones are used.
    every: Duration,
    /// A lock, as calls come from all connections. It is held for an instant.
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    left: HashMap<LaunchId, Left>,
    /// So many are remembered when some are forgotten next.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    count: u32,
    since: Instant,
}

impl Rations {
    /// `burst` at once, and one more after each `every`.
    pub(super) fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            held: Mutex::new(Held {
                left: HashMap::new(),
                sweep_at: REMEMBERED,
            }),
        }
    }

    /// Takes one, if the launch has one left.
    pub(super) fn take(&self, launch: &LaunchId) -> bool {
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.left.len() >= held.sweep_at {
            held.left
                .retain(|_, left| self.refilled(*left, now).count < self.burst);
            // Not at every call while there are many.
            held.sweep_at = REMEMBERED.max(held.left.len() * 2);
        }
        let fresh = Left {
            count: self.burst,
            since: now,
        };
        let left = held.left.entry(launch.clone()).or_insert(fresh);
        *left = self.refilled(*left, now);
        let may = left.count > 0;
        left.count = left.count.saturating_sub(1);
        may
    }

    fn refilled(&self, mut left: Left, now: Instant) -> Left {
        while left.count < self.burst && now.duration_since(left.since) >= self.every {
            left.count += 1;
            left.since += self.every;
        }
        if left.count == self.burst {
            left.since = now;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(225);

    #[tokio::test(start_paused = true)]
    async fn some_may_come_at_once_and_then_one_in_a_while() {
        let rations = Rations::new(8, EVERY);
        let (one, other) = (LaunchId::from("one"), LaunchId::from("other"));
        let taken = (0..100).filter(|_| rations.take(&one)).count();
        assert_eq!(taken, 8);
        assert!(rations.take(&other), "each has its own");
        tokio::time::advance(EVERY).await;
        assert!(rations.take(&one));
        assert!(!rations.take(&one));
        tokio::time::advance(EVERY * 160).await;
        let taken = (0..100).filter(|_| rations.take(&one)).count();
        assert_eq!(taken, 8, "they don't add up");
    }

    #[tokio::test(start_paused = true)]
    async fn launches_that_take_no_more_are_forgotten() {
        let rations = Rations::new(8, EVERY);
        for launch in 0..REMEMBERED {
            rations.take(&LaunchId::from(launch.to_string().as_str()));
        }
        tokio::time::advance(EVERY).await;
        rations.take(&LaunchId::from("new"));
        assert_eq!(rations.held.lock().unwrap().left.len(), 1);
    }
}
