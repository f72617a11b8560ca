//! How long things are kept, and when the clock is not believed about it.
//!
//! A clock that is ahead would have all of the history deleted. While the process runs its clock is steady, but it
//! starts with the system's; so the timeline is asked whether that may be right.

use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Pruned, Store, StoreError, prune, timeline};
use crate::clock;

/// Why nothing is deleted.
#[derive(Debug, Error)]
pub enum NotPruned {
    /// The clock is behind, or was ahead.
    #[error("the newest entry of the timeline is of {newest}, but it is {now} by the clock")]
    Ahead {
        /// When the newest entry was made.
        newest: Timestamp,
        /// What the clock shows.
        now: Timestamp,
    },
    /// The clock is ahead, or nothing has happened for long.
    #[error(
        "it is {now} by the clock, and so the whole timeline would go: the newest entry is of {newest}"
    )]
    All {
        /// When the newest entry was made.
        newest: Timestamp,
        /// What the clock shows.
        now: Timestamp,
    },
    /// The store can't do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes what is older than a span, unless the clock may be wrong.
#[derive(Clone, Debug)]
pub struct Retention {
    store: Store,
    kept: Duration,
    /// The newest entry of the timeline when this process began to lead.
    newest: Option<Timestamp>,
    since: Instant,
}

impl Retention {
    /// Keeps things for this span. To be made before anything is written to the timeline by this process's clock.
    ///
    /// # Errors
    /// When the timeline can't be read.
    pub async fn begin(store: Store, kept: Duration) -> Result<Self, StoreError> {
        let newest = timeline::newest_at(&store.inner.reads).await?;
        Ok(Self {
            store,
            kept,
            newest,
            since: Instant::now(),
        })
    }

    /// Deletes what is too old at each interval, the first time after one: by then a clock that was wrong at the
    /// start of the machine is set, and the process can be started again.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        let pruning = async {
            let mut told = false;
            loop {
                sleep(interval).await;
                match self.prune(clock::now(), self.since.elapsed()).await {
                    Err(NotPruned::Store(error)) => {
                        tracing::warn!(%error, "the store can't be pruned");
                    }
                    Err(reason) if !std::mem::replace(&mut told, true) => tracing::warn!(
                        %reason,
                        kept_for = ?self.kept,
                        "nothing is pruned from the store, as the system's clock may be wrong; that begins again \
                         when this process has run for as long as things are kept"
                    ),
                    Ok(_) | Err(_) => {}
                }
            }
        };
        // What was pruned by then stays so.
        stop.run_until_cancelled(pruning).await;
    }

    /// Deletes what is too old at this time, after so long in the lead.
    ///
    /// # Errors
    /// When the clock may be wrong, or it can't be done.
    pub async fn prune(&self, now: Timestamp, led_for: Duration) -> Result<Pruned, NotPruned> {
        let before = now.checked_sub(self.kept).unwrap_or(Timestamp::MIN);
        match self.newest {
            // What was found has aged by the whole span since, whatever the time is.
            _ if led_for >= self.kept => {}
            Some(newest) if newest > now => return Err(NotPruned::Ahead { newest, now }),
            Some(newest) if newest < before => return Err(NotPruned::All { newest, now }),
            _ => {}
        }
        Ok(prune::prune(&self.store.inner.writer, before).await?)
    }
}
