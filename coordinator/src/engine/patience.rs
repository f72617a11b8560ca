//! Storing what was decided, however long that takes.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Trouble;
use crate::backoff::Backoff;
use crate::store::{Batch, Ledger, StoreError, StoredEntry};

/// How long the store may refuse what it will refuse again, before the process gives up and starts anew. An
/// outage is waited out, however long it is.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// Waits between tries while the store fails.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Stores a batch, again and again: what is in memory is ahead of the store until it is stored, so there is
/// no going on without it. Meanwhile events wait in their channel, and those who send more wait themselves;
/// nothing is done, said or answered.
pub(super) async fn store_patiently(
    store: &dyn Ledger,
    batch: &Batch,
    trouble: &Trouble,
    stop: &CancellationToken,
) -> Result<Vec<StoredEntry>, StoreError> {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut refused_since = None;
    loop {
        let error = match store.commit(batch.clone()).await {
            Ok(entries) => {
                if backoff.tries() > 0 {
                    trouble.send_replace(None);
                    tracing::info!(tries = backoff.tries(), "what was decided is stored");
                }
                return Ok(entries);
            }
            Err(error) => error,
        };
        if error.passes() {
            refused_since = None;
        } else {
            let since = *refused_since.get_or_insert_with(Instant::now);
            if matches!(error, StoreError::NotLeader) || since.elapsed() >= STORE_PATIENCE {
                return Err(error);
            }
        }
        trouble.send_replace(Some(error.to_string()));
        let wait = backoff.wait();
        if backoff.tries().is_power_of_two() {
            tracing::error!(%error, tries = backoff.tries(), "what was decided can't be stored yet");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(error),
            () = tokio::time::sleep(wait) => {}
        }
    }
}
