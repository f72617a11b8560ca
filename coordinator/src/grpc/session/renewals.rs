//! How often an agent may renew its certificate. It does so once in half of the certificate's life; more
//! often is an agent whose answers are lost, or somebody who keeps the authority's key busy.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::LaunchId;
use tokio::time::Instant;

/// Renewals that may come one after the other.
const BURST: u32 = 8;
/// Renewals in one life of a certificate beside those.
const IN_A_LIFE: u32 = 16;
/// Launches that are remembered before those are forgotten that have all their renewals again.
const REMEMBERED: usize = 4_096;

/// The renewals of all launches.
#[derive(Debug)]
pub(super) struct Renewals {
    /// Time from one renewal to the next, once the first ones are used.
    every: Duration,
    /// A lock, as calls come from all connections. It is held for an instant.
    left: Mutex<HashMap<LaunchId, Left>>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    count: u32,
    since: Instant,
}

impl Renewals {
    /// For certificates that live so long.
    pub(super) fn new(life: Duration) -> Self {
        Self {
            every: life / IN_A_LIFE,
            left: Mutex::default(),
        }
    }

    /// Takes one, if the launch has one left.
    pub(super) fn take(&self, launch: &LaunchId) -> bool {
        let now = Instant::now();
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, left| self.refilled(*left, now).count < BURST);
        }
        let fresh = Left {
            count: BURST,
            since: now,
        };
        let left = all.entry(launch.clone()).or_insert(fresh);
        *left = self.refilled(*left, now);
        let may = left.count > 0;
        left.count = left.count.saturating_sub(1);
        may
    }

    fn refilled(&self, mut left: Left, now: Instant) -> Left {
        while left.count < BURST && now.duration_since(left.since) >= self.every {
            left.count += 1;
            left.since += self.every;
        }
        if left.count == BURST {
            left.since = now;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn some_renewals_may_come_at_once_and_then_one_in_a_while() {
        let renewals = Renewals::new(LIFE);
        let (one, other) = (LaunchId::from("one"), LaunchId::from("other"));
        let taken = (0..100).filter(|_| renewals.take(&one)).count();
        assert_eq!(taken, 8);
        assert!(renewals.take(&other), "each has its own");
        tokio::time::advance(LIFE / 16).await;
        assert!(renewals.take(&one));
        assert!(!renewals.take(&one));
        tokio::time::advance(LIFE * 10).await;
        let taken = (0..100).filter(|_| renewals.take(&one)).count();
        assert_eq!(taken, 8, "they don't add up");
    }

    #[tokio::test(start_paused = true)]
    async fn launches_that_renew_no_more_are_forgotten() {
        let renewals = Renewals::new(LIFE);
        for launch in 0..REMEMBERED {
            renewals.take(&LaunchId::from(launch.to_string().as_str()));
        }
        tokio::time::advance(LIFE).await;
        renewals.take(&LaunchId::from("new"));
        assert_eq!(renewals.left.lock().unwrap().len(), 1);
    }
}
