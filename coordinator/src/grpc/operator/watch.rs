//! Timeline entries as they happen.

use std::sync::Arc;

use muster_core::PoolName;
use muster_proto::v1;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use super::{Shared, WatchStream, convert, near, pools, stopping, store_failed};
use crate::grpc::authorize::{Refused, Validity};
use crate::store::{StoredEntry, TimelineQuery};

/// Entries that a watch begins with.
const LATEST: u32 = 20;
/// Entries that are read from the store at a time.
const PAGE: u32 = 200;

/// What a live watch meets next.
enum Next {
    Entry(StoredEntry),
    /// Some entries were missed, as the watcher is slow; the store has them.
    Missed,
    Stopping,
    Invalid(Refused),
}

impl Shared {
    /// A stream of entries. It is polled by the connection, so that a watcher who doesn't read
    /// costs nothing; it catches up from the store.
    pub(super) async fn watch(
        self: Arc<Self>,
        request: v1::WatchEventsRequest,
        validity: Validity,
    ) -> Result<WatchStream, Status> {
        let permit = Arc::clone(&self.watches)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many watches at a time"))?;
        let wanted = request.pool.clone();
        let pool = self
            .query(move |fleet| pools::filter(fleet, &wanted))
            .await?
            .map_err(|known| near::not_found("pool", &request.pool, known))?;
        // Before the store is read, so that nothing falls between the two.
        let mut live = self.engine.subscribe();
        let stream = async_stream::try_stream! {
            let _permit = permit;
            let mut after = request.after_sequence;
            if after <= 0 {
                after = 0;
                for stored in self.latest(pool.clone()).await? {
                    after = stored.sequence;
                    yield shown(stored);
                }
            }
            loop {
                loop {
                    let page = self.page(pool.clone(), after).await?;
                    let Some(last) = page.last() else {
                        break;
                    };
                    after = last.sequence;
                    for stored in page {
                        yield shown(stored);
                    }
                }
                if request.stop_at_end {
                    return;
                }
                loop {
                    match self.next(&mut live, &validity).await {
                        Next::Entry(stored) => {
                            if stored.sequence > after {
                                after = stored.sequence;
                                if pool.is_none() || stored.entry.pool == pool {
                                    yield shown(stored);
                                }
                            }
                        }
                        Next::Missed => break,
                        Next::Stopping => Err(stopping())?,
                        Next::Invalid(refused) => Err(refused)?,
                    }
                }
            }
        };
        Ok(Box::pin(stream))
    }

    async fn next(&self, live: &mut broadcast::Receiver<StoredEntry>, validity: &Validity) -> Next {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Next::Stopping,
            refused = validity.clone().ended() => Next::Invalid(refused),
            entry = live.recv() => match entry {
                Ok(entry) => Next::Entry(entry),
                Err(RecvError::Lagged(_)) => Next::Missed,
                Err(RecvError::Closed) => Next::Stopping,
            },
        }
    }

    async fn latest(&self, pool: Option<PoolName>) -> Result<Vec<StoredEntry>, Status> {
        let query = TimelineQuery {
            pool,
            limit: LATEST,
            ..TimelineQuery::default()
        };
        self.store.timeline(query).await.map_err(store_failed)
    }

    async fn page(&self, pool: Option<PoolName>, after: i64) -> Result<Vec<StoredEntry>, Status> {
        let query = TimelineQuery {
            pool,
            after: Some(after),
            limit: PAGE,
            ..TimelineQuery::default()
        };
        self.store.timeline(query).await.map_err(store_failed)
    }
}

fn shown(stored: StoredEntry) -> v1::WatchEventsResponse {
    v1::WatchEventsResponse {
        entry: Some(convert::entry(stored)),
    }
}
