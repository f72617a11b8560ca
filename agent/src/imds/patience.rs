//! How long to ask for something that is not there yet.

use std::time::Duration;

use tokio::time::Instant;

use super::error::ImdsError;
use crate::backoff::Backoff;

/// How often something is asked for that must appear. Credentials take a while at boot:
/// <https://github.com/awslabs/amazon-eks-ami> asks 60 times, with at most a second between.
const TRIES_MAX: u32 = 60;
const WAIT_BASE: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long all of these tries may take.
const APPEAR_LIMIT: Duration = Duration::from_secs(60);

/// Waits between tries, until there were enough.
#[derive(Debug)]
pub(super) struct Patience {
    backoff: Backoff,
    begun: Instant,
    tries: u32,
}

impl Patience {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            backoff: Backoff::new(WAIT_BASE, WAIT_MAX),
            begun: now,
            tries: 1,
        }
    }

    /// When the last try must be over.
    pub(super) fn ends(&self) -> Instant {
        self.begun + APPEAR_LIMIT
    }

    /// What to say if nothing was there to the last.
    pub(super) fn absent(&self) -> ImdsError {
        ImdsError::Absent {
            tries: self.tries,
            waited: self.begun.elapsed(),
        }
    }

    /// The wait before the next try, if there is to be one.
    pub(super) fn next_wait(&mut self) -> Option<Duration> {
        let wait = self.backoff.next();
        let go_on = self.tries < TRIES_MAX && Instant::now() + wait < self.ends();
        self.tries += 1;
        go_on.then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{APPEAR_LIMIT, Patience, TRIES_MAX, WAIT_MAX};

    #[tokio::test(start_paused = true)]
    async fn patience_ends_by_tries_or_by_time() {
        // Tries that take no time of their own.
        let mut patience = Patience::new(Instant::now());
        let mut tries = 1;
        while let Some(wait) = patience.next_wait() {
            assert!(wait <= WAIT_MAX, "{wait:?}");
            sleep(wait).await;
            tries += 1;
        }
        assert_eq!(tries, TRIES_MAX);
        // Tries that take a second.
        let begun = Instant::now();
        let mut patience = Patience::new(begun);
        let mut tries = 1;
        while let Some(wait) = patience.next_wait() {
            sleep(wait + Duration::from_secs(1)).await;
            tries += 1;
        }
        assert!(tries < TRIES_MAX, "{tries}");
        assert!(begun.elapsed() <= APPEAR_LIMIT + Duration::from_secs(1));
        let absent = patience.absent().to_string();
        assert!(absent.starts_with("nothing there after "), "{absent}");
    }
}
