//! Finds deliveries that never arrived and asks GitHub for them again. A webhook makes things fast;
//! this makes them certain.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::plan::{Memory, plan};
use super::deliveries::{Cursor, Deliveries};
use super::errors::GithubError;
use super::rest::GithubClient;
use crate::store::{Ledger, StoreError};
use crate::{chance, clock};

/// Name of the note that says since when deliveries must be looked at.
const NOTE: &str = "deliveries.checked";

/// GitHub keeps deliveries for so long.
/// <https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks>
const KEPT: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// An attempt may be recorded a while after it was made.
const OVERLAP: Duration = Duration::from_secs(5 * 60);

/// Time for each call of a round beyond some, before the next round: 2,400 calls in an hour, however long an outage is
/// and the list of what it failed. The tokens of installations come out of the same limit.
const FOR_EACH_CALL: Duration = Duration::from_millis(1_500);
const SOME_CALLS: u32 = 20;

/// Deliveries in one page of the list.
const PAGE: usize = 100;

/// Looks for failed deliveries at once and then at each interval, until cancelled.
pub async fn run(
    client: GithubClient,
    store: Arc<dyn Ledger>,
    interval: Duration,
    cancel: CancellationToken,
) {
    let mut reconciler = Reconciler {
        client,
        store,
        memory: Memory::default(),
        walk: None,
        calls: 0,
    };
    while let Some(result) = cancel.run_until_cancelled(reconciler.round()).await {
        if let Err(error) = result {
            tracing::warn!(%error, "failed to look for lost deliveries");
        }
        let pause = tokio::time::sleep(reconciler.pause(interval));
        if cancel.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// Three quarters to five quarters of an interval, so that processes don't fall into step.
pub(super) fn jittered(interval: Duration) -> Duration {
    chance::around(interval, 0.75, 1.25)
}

struct Reconciler {
    client: GithubClient,
    store: Arc<dyn Ledger>,
    memory: Memory,
    walk: Option<Walk>,
    /// That the last round made.
    calls: u32,
}

/// A list that is too long for one round.
#[derive(Clone)]
struct Walk {
    next: Cursor,
    began: Timestamp,
    unsettled_since: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Github(#[from] GithubError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Reconciler {
    /// How long to wait after a round.
    fn pause(&self, interval: Duration) -> Duration {
        let calls = self.calls.saturating_sub(SOME_CALLS);
        jittered(interval).max(FOR_EACH_CALL.saturating_mul(calls))
    }

    /// One look at what is new, and at the next part of a list that was too long before.
    async fn round(&mut self) -> Result<(), RoundError> {
        let now = clock::now();
        self.calls = 0;
        let since = self.since(now).await?;
        let newest = self.client.deliveries(since, None).await?;
        let mut attempts = newest.attempts;
        let mut began = now;
        let mut unsettled_since = None;
        let mut more = newest.more;
        if let Some((walk, older)) = self.next_part(since).await? {
            attempts.extend(older.attempts);
            began = walk.began;
            unsettled_since = walk.unsettled_since;
            more = older.more;
        }
        let pages = attempts.len().div_ceil(PAGE);
        self.calls = u32::try_from(pages).unwrap_or(u32::MAX);
        let plan = plan(&attempts, &self.memory, now);
        let unsettled_since = earlier(unsettled_since, plan.unsettled_since);
        self.walk = more.map(|next| Walk {
            next,
            began,
            unsettled_since,
        });
        if plan.given_up > 0 {
            tracing::warn!(
                deliveries = plan.given_up,
                "deliveries are refused again and again"
            );
        }
        self.ask(plan.ask).await?;
        if self.walk.is_none() {
            let settled = earlier(Some(began), unsettled_since).unwrap_or(began);
            let settled = settled.saturating_sub(OVERLAP).unwrap_or(since).max(since);
            self.store.set_note(NOTE, &settled.to_string()).await?;
        }
        Ok(())
    }

    /// The next part of a list that was too long. One that GitHub does not go on with is read anew, from what is new.
    async fn next_part(
        &mut self,
        since: Timestamp,
    ) -> Result<Option<(Walk, Deliveries)>, GithubError> {
        let Some(walk) = self.walk.clone() else {
            return Ok(None);
        };
        match self.client.deliveries(since, Some(walk.next.clone())).await {
            Ok(older) => Ok(Some((walk, older))),
            Err(error) if error.retry_after().is_some() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the list of deliveries is read anew");
                self.walk = None;
                Ok(None)
            }
        }
    }

    async fn since(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        let oldest = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
        let note = self.store.note(NOTE).await?;
        // A note that can't be read only costs a longer look; so does one by a clock that was ahead.
        let ahead = now.saturating_add(OVERLAP).unwrap_or(Timestamp::MAX);
        let since = note.and_then(|text| text.parse().ok());
        let since = since.filter(|since| *since <= ahead).unwrap_or(oldest);
        Ok(since.max(oldest))
    }

    async fn ask(&mut self, deliveries: Vec<(String, i64)>) -> Result<(), GithubError> {
        for (guid, attempt) in deliveries {
            self.calls = self.calls.saturating_add(1);
            match self.client.redeliver(attempt).await {
                Ok(()) => tracing::info!(delivery = guid, "asked for a lost delivery"),
                Err(error) if error.retry_after().is_some() => return Err(error),
                Err(error) => {
                    tracing::warn!(delivery = guid, %error, "failed to ask for a lost delivery");
                }
            }
            self.memory.asked(guid, clock::now());
        }
        Ok(())
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::github::fake::{Fake, reply};
    use crate::store::Store;

    /// After a round over so many deliveries that failed.
    async fn after(failed: usize) -> Reconciler {
        let at = clock::now().to_string();
        let list: Vec<_> = (0..failed)
            .map(|id| {
                json!({ "id": id, "guid": format!("guid-{id}"), "event": "workflow_job",
                    "status_code": 503, "delivered_at": at })
            })
            .collect();
        let github = Fake::new(move |asked| {
            let body = if asked.line.contains("/attempts") {
                json!({})
            } else {
                json!(list)
            };
            Some(reply(202, body))
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("muster.db")).await;
        let mut reconciler = Reconciler {
            client: github.client(),
            store: Arc::new(store.unwrap()),
            memory: Memory::default(),
            walk: None,
            calls: 0,
        };
        reconciler.round().await.unwrap();
        reconciler
    }

    #[tokio::test]
    async fn a_long_outage_does_not_use_up_the_limit_that_tokens_come_out_of() {
        let minute = Duration::from_secs(60);
        let few = after(19).await;
        assert_eq!(few.calls, 20);
        assert!(few.pause(minute) <= minute * 5 / 4);
        let many = after(2_000).await;
        assert_eq!(
            many.calls, 120,
            "twenty pages, and a hundred to be asked for"
        );
        assert_eq!(many.pause(minute), Duration::from_secs(150));
    }
}
