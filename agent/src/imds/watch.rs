//! Looks for notices again and again, often while a job runs.
//!
//! A Spot notice gives two minutes, so each look is for that. The other sources are hints or days ahead:
//! they are looked at every ten seconds at most, which spares most of the requests. `cost_of_a_minute` in its
//! tests, which is ignored unless asked for, prints what watching costs.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use url::Url;

use super::client::Client;
use super::notice::{Notice, Source};
use super::reported::Reported;
use crate::backoff;

/// How often to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cadence {
    /// Nothing can be lost: every 5 s, as AWS advises.
    Idle,
    /// A job runs: every 2 s.
    Busy,
}

/// Mean times between two looks.
#[derive(Clone, Copy, Debug)]
struct Intervals {
    idle: Duration,
    busy: Duration,
    /// The longest while the service fails: it throttles per instance.
    failing: Duration,
    /// The shortest between two looks at the sources other than Spot.
    others: Duration,
}

const INTERVALS: Intervals = Intervals {
    idle: Duration::from_secs(5),
    busy: Duration::from_secs(2),
    failing: Duration::from_secs(16),
    others: Duration::from_secs(10),
};

/// Sends each notice of the service below `base` once. Runs until nobody receives them any more.
pub(crate) async fn watch(
    base: Url,
    cadence: watch::Receiver<Cadence>,
    notices: mpsc::Sender<Notice>,
) {
    watch_at(base, cadence, notices, INTERVALS).await;
}

async fn watch_at(
    base: Url,
    cadence: watch::Receiver<Cadence>,
    notices: mpsc::Sender<Notice>,
    intervals: Intervals,
) {
    let mut watcher = Watcher {
        client: Client::new(&base),
        reported: Reported::default(),
        failing: Vec::new(),
        notices,
    };
    let mut pace = Pace::new(cadence, intervals);
    let mut others_at = Instant::now();
    loop {
        let mut look = watcher.look(Source::Spot).await;
        pace.looked(look == Look::Failed);
        // What fails for one source would most likely fail for all.
        if look == Look::Answered && others_at <= Instant::now() {
            others_at = Instant::now() + intervals.others;
            for source in Source::OTHERS {
                look = watcher.look(source).await;
                if look == Look::Unwatched {
                    break;
                }
            }
        }
        if look == Look::Unwatched {
            tracing::debug!("nobody waits for notices any more");
            return;
        }
        pace.wait().await;
    }
}

struct Watcher {
    client: Client,
    reported: Reported,
    /// The sources that failed when they were last looked at.
    failing: Vec<Source>,
    notices: mpsc::Sender<Notice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Answered,
    Failed,
    /// Nobody receives notices any more.
    Unwatched,
}

impl Watcher {
    async fn look(&mut self, source: Source) -> Look {
        let path = source.path();
        let answer = match self.client.get(path).await {
            Ok(answer) => answer,
            Err(error) => {
                if !self.failing.contains(&source) {
                    self.failing.push(source);
                    let retryable = error.is_retryable();
                    tracing::warn!(path, %error, retryable, "the metadata service failed");
                }
                return Look::Failed;
            }
        };
        if self.failing.contains(&source) {
            self.failing.retain(|failing| *failing != source);
            tracing::info!(path, "the metadata service answers again");
        }
        let Some(body) = answer else {
            return Look::Answered;
        };
        for notice in self.reported.news(source, &body) {
            tracing::warn!(
                kind = notice.kind.as_str_name(),
                deadline = notice.deadline.map(tracing::field::display),
                detail = notice.detail,
                "interruption notice"
            );
            if self.notices.send(notice).await.is_err() {
                return Look::Unwatched;
            }
        }
        Look::Answered
    }
}

/// When to look next.
#[derive(Debug)]
struct Pace {
    cadence: watch::Receiver<Cadence>,
    intervals: Intervals,
    looked_at: Instant,
    /// Looks that failed since one did not.
    failures: u32,
}

impl Pace {
    fn new(cadence: watch::Receiver<Cadence>, intervals: Intervals) -> Self {
        Self {
            cadence,
            intervals,
            looked_at: Instant::now(),
            failures: 0,
        }
    }

    fn looked(&mut self, failed: bool) {
        self.looked_at = Instant::now();
        self.failures = if failed {
            self.failures.saturating_add(1)
        } else {
            0
        };
    }

    fn interval(&self) -> Duration {
        let interval = match *self.cadence.borrow() {
            Cadence::Idle => self.intervals.idle,
            Cadence::Busy => self.intervals.busy,
        };
        let doublings = self.failures.saturating_sub(1).min(8);
        (interval * 2_u32.pow(doublings)).min(self.intervals.failing)
    }

    /// Waits from the last look on. When the cadence changes, so does what is left of the wait.
    async fn wait(&mut self) {
        loop {
            let next = self.looked_at + backoff::around(self.interval());
            tokio::select! {
                () = sleep_until(next) => return,
                changed = self.cadence.changed() => {
                    if changed.is_err() {
                        // It stays as it is.
                        sleep_until(next).await;
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
