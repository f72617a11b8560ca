//! One call of one batch: stored before, settled after.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock;
use crate::compute::ec2::batch::{Batch, Made, Outcome};
use crate::compute::ec2::budget::Budgets;
use crate::compute::ec2::clients::Clients;
use crate::compute::ec2::describe::{self, TAG_BATCH};
use crate::compute::ec2::error::{CallError, Kind};
use crate::compute::ec2::fleet::{self, Failure};
use crate::compute::ec2::launched::LaunchedInstances;
use crate::compute::ec2::settings::Pace;
use crate::store::Store;

/// How long a call without an answer is made again with its token; EC2 remembers tokens for longer than
/// this. After it, what carries the batch's tag is all there is.
const REPLAY: jiff::SignedDuration = jiff::SignedDuration::from_mins(30);
/// How much later what the last call made is in EC2's lists: the longest call, and as much again. From
/// then on a list without it is proof.
const LISTED: jiff::SignedDuration = jiff::SignedDuration::from_mins(2);
/// How often EC2's lists are asked again before what they lack counts as not made: they lag behind by
/// seconds (<https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>).
const LOOKS: u32 = 4;
/// How often an outcome is stored before it is left to the next call.
const STORE_TRIES: u32 = 5;

/// What calls are made with. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::compute::ec2) struct Caller {
    pub(in crate::compute::ec2) clients: Clients,
    pub(in crate::compute::ec2) budgets: Arc<Budgets>,
    pub(in crate::compute::ec2) store: Store,
    /// Where it is kept what came of calls.
    pub(in crate::compute::ec2) launched: LaunchedInstances,
    pub(in crate::compute::ec2) pace: Pace,
}

/// What may have come of a batch so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It is not in the store, and nobody was called.
    New,
    /// It is in the store, and no call was carried out.
    Stored,
    /// A call has no answer, perhaps one of a process that was killed: it may have been carried out.
    Unanswered,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) token: String,
    pub(super) result: Result,
}

#[derive(Debug)]
pub(super) enum Result {
    /// It is to be made again.
    Again { standing: Standing, reason: String },
    /// EC2 made these, and says this of what it didn't make. None if its answer is not known, and what
    /// it made was found by its tag.
    Dealt {
        batch: Batch,
        failures: Option<Vec<Failure>>,
    },
    /// EC2 made nothing.
    Refused { batch: Batch, error: CallError },
}

/// What a batch made, as far as EC2 says.
struct Found {
    made: Vec<Made>,
    failures: Option<Vec<Failure>>,
}

impl Caller {
    /// Stores the batch if it is not, calls EC2, and stores what came of it.
    pub(super) async fn call(self, batch: Batch, standing: Standing) -> Ended {
        let token = batch.token.clone();
        let result = self.call_once(batch, standing).await;
        Ended { token, result }
    }

    async fn call_once(&self, batch: Batch, standing: Standing) -> Result {
        let again = |standing, reason: String| Result::Again { standing, reason };
        if standing == Standing::New
            && let Err(error) = self.put(&batch).await
        {
            let reason = format!("the launch can't be stored: {error}");
            return again(Standing::New, reason);
        }
        let stored = standing.max(Standing::Stored);
        match self.ask(&batch, stored).await {
            Ok(found) => {
                let dealt = Outcome::Dealt(batch.deal(found.made));
                match self.settle(batch, dealt).await {
                    Ok(batch) => Result::Dealt {
                        batch,
                        failures: found.failures,
                    },
                    Err(reason) => again(Standing::Unanswered, reason),
                }
            }
            Err(error) if error.kind.refuses() => {
                let refused = Outcome::Refused(error.text.clone());
                match self.settle(batch, refused).await {
                    Ok(batch) => Result::Refused { batch, error },
                    Err(reason) => again(stored, reason),
                }
            }
            Err(error) if error.kind == Kind::Unknown => again(Standing::Unanswered, error.text),
            Err(error) => again(stored, error.text),
        }
    }

    /// Calls EC2; where its answer doesn't say what an earlier call made, looks for that.
    async fn ask(
        &self,
        batch: &Batch,
        standing: Standing,
    ) -> std::result::Result<Found, CallError> {
        let age = clock::now().duration_since(batch.created_at);
        if age > REPLAY {
            let looks = if age > REPLAY + LISTED { 0 } else { LOOKS };
            return self.adopt(batch, looks).await;
        }
        self.budgets.create_fleet.spend().await;
        match fleet::create(&self.clients.ec2, batch).await {
            Ok(answer) => {
                let throttled = |failed: &Failure| failed.kind == Some(Kind::Throttled);
                if answer.failures.iter().any(throttled) {
                    self.budgets.create_fleet.refused();
                }
                Ok(Found {
                    made: answer.made,
                    failures: Some(answer.failures),
                })
            }
            Err(error) if error.kind == Kind::TokenReused => self.adopt(batch, LOOKS).await,
            Err(error) if error.kind.refuses() && standing == Standing::Unanswered => {
                // That this call is refused says nothing of the one before.
                let found = self.adopt(batch, LOOKS).await?;
                if found.made.is_empty() {
                    return Err(error);
                }
                Ok(found)
            }
            Err(error) => {
                if error.kind == Kind::Throttled {
                    self.budgets.create_fleet.refused();
                }
                Err(error)
            }
        }
    }

    /// Finds what a batch made by its tag, and looks `looks` times more while there is nothing.
    async fn adopt(&self, batch: &Batch, looks: u32) -> std::result::Result<Found, CallError> {
        let name = format!("tag:{TAG_BATCH}");
        let mut backoff = Backoff::new(self.pace.look, 8 * self.pace.look);
        loop {
            let values = vec![batch.token.clone()];
            let seen = describe::describe(&self.clients.ec2, &self.budgets, &name, values).await;
            // Whatever the reason: what was made is not known.
            let seen = seen.map_err(|error| CallError::unknown(error.text))?;
            if !seen.is_empty() || backoff.tries() >= looks {
                let made = seen.into_iter().map(|seen| Made {
                    instance: seen.id,
                    offering: seen.offering,
                });
                return Ok(Found {
                    made: made.collect(),
                    failures: None,
                });
            }
            tokio::time::sleep(backoff.wait_at_least(self.pace.look)).await;
        }
    }

    async fn settle(&self, batch: Batch, outcome: Outcome) -> std::result::Result<Batch, String> {
        let batch = Batch {
            outcome: Some(outcome),
            ..batch
        };
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let Err(error) = self.put(&batch).await else {
                // Before the ledger has the instance, and so before it may enrol.
                self.launched.remember(&batch);
                return Ok(batch);
            };
            if backoff.tries() >= STORE_TRIES {
                return Err(format!("what EC2 answered can't be stored: {error}"));
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    async fn put(&self, batch: &Batch) -> std::result::Result<(), String> {
        let row = batch.to_row().map_err(|error| error.to_string())?;
        let put = self.store.put_launch_batch(row).await;
        put.map_err(|error| error.to_string())
    }
}
