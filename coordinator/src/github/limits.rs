//! Budgets: what GitHub allows, kept on this side so that no call is made to be refused.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::errors::{Hold, RetryLater};

/// Who makes a call. Each has its own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// The app itself.
    App,
    /// One installation of it.
    Installation(i64),
}

/// Which of the caller's limits a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bucket {
    /// Most calls.
    Core,
    /// Registration of runners.
    Registration,
}

/// Where one of the caller's hourly limits stands, as GitHub said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Calls in an hour.
    pub(super) limit: u32,
    /// Calls that are left.
    pub(super) remaining: u32,
    /// When all are there again.
    pub(super) resets_at: Instant,
}

/// Which calls must not go out, and until when.
///
/// A mutex, as every call reads it and holds it for no longer than a look.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Without a bucket: all calls of the caller.
    closed: Mutex<HashMap<(Caller, Option<Bucket>), Closed>>,
    /// What GitHub said of each limit.
    standings: Mutex<HashMap<(Caller, Bucket), Standing>>,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    until: Instant,
    reason: &'static str,
}

impl Gate {
    /// Whether a call may go out now.
    pub(super) fn check(&self, caller: Caller, bucket: Bucket) -> Result<(), RetryLater> {
        let now = Instant::now();
        let closed = lock(&self.closed);
        let longest = [None, Some(bucket)]
            .into_iter()
            .filter_map(|bucket| closed.get(&(caller, bucket)))
            .filter(|closed| closed.until > now)
            .max_by_key(|closed| closed.until);
        match longest {
            None => Ok(()),
            Some(closed) => Err(RetryLater {
                after: closed.until - now,
                reason: closed.reason.to_owned(),
            }),
        }
    }

    /// Remembers what GitHub said of a limit.
    pub(super) fn note(&self, caller: Caller, bucket: Bucket, standing: Standing) {
        lock(&self.standings).insert((caller, bucket), standing);
    }

    /// Where a limit stands, if GitHub has said so and it has not begun anew since.
    pub(super) fn standing(&self, caller: Caller, bucket: Bucket) -> Option<Standing> {
        let standing = lock(&self.standings).get(&(caller, bucket)).copied()?;
        (standing.resets_at > Instant::now()).then_some(standing)
    }

    /// Keeps calls back. A longer hold stays.
    pub(super) fn close(&self, caller: Caller, bucket: Bucket, hold: &Hold) {
        let now = Instant::now();
        let new = Closed {
            until: now + hold.after,
            reason: hold.reason,
        };
        let key = (caller, (!hold.everything).then_some(bucket));
        let mut closed = lock(&self.closed);
        closed.retain(|_, old| old.until > now);
        closed
            .entry(key)
            .and_modify(|old| {
                if new.until > old.until {
                    *old = new;
                }
            })
            .or_insert(new);
    }
}

/// At most so many in any one minute.
#[derive(Debug)]
pub(super) struct PerMinute {
    most: usize,
    taken: Mutex<VecDeque<Instant>>,
}

impl PerMinute {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
        }
    }

    /// Takes one, or says when there is one.
    pub(super) fn take(&self) -> Result<(), RetryLater> {
        const MINUTE: Duration = Duration::from_secs(60);
        let now = Instant::now();
        let mut taken = lock(&self.taken);
        while taken.front().is_some_and(|&first| now - first >= MINUTE) {
            taken.pop_front();
        }
        match taken.front() {
            Some(&first) if taken.len() >= self.most => Err(RetryLater {
                after: MINUTE - (now - first),
                reason: format!("{} calls were made in the last minute", self.most),
            }),
            _ => {
                taken.push_back(now);
                Ok(())
            }
        }
    }
}

/// Nothing that holds these locks can leave the data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(everything: bool, seconds: u64) -> Hold {
        Hold {
            everything,
            after: Duration::from_secs(seconds),
            reason: "a limit",
        }
    }

    const CALLER: Caller = Caller::Installation(1);

    #[tokio::test(start_paused = true)]
    async fn a_used_up_bucket_holds_its_own_calls_only_and_for_its_time() {
        let gate = Gate::default();
        gate.close(CALLER, Bucket::Core, &hold(false, 30));
        assert_eq!(gate.check(CALLER, Bucket::Registration), Ok(()));
        assert_eq!(gate.check(Caller::App, Bucket::Core), Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        let after = gate.check(CALLER, Bucket::Core).unwrap_err().after;
        assert_eq!(after, Duration::from_secs(20));
        tokio::time::advance(after).await;
        assert_eq!(gate.check(CALLER, Bucket::Core), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secondary_limit_holds_all_calls_and_a_shorter_hold_does_not_shorten_it() {
        let gate = Gate::default();
        gate.close(CALLER, Bucket::Core, &hold(true, 30));
        gate.close(CALLER, Bucket::Core, &hold(true, 5));
        gate.close(CALLER, Bucket::Registration, &hold(false, 5));
        for bucket in [Bucket::Core, Bucket::Registration] {
            let after = gate.check(CALLER, bucket).unwrap_err().after;
            assert_eq!(after, Duration::from_secs(30));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_sees_more_than_allowed() {
        let budget = PerMinute::new(3);
        for _ in 0..3 {
            budget.take().unwrap();
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        let after = budget.take().unwrap_err().after;
        assert_eq!(after, Duration::from_secs(30), "the first is 30 s old");
        tokio::time::advance(after).await;
        budget.take().unwrap();
        assert!(budget.take().is_err(), "the second is 50 s old");
    }
}
