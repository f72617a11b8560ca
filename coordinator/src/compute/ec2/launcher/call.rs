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
use crate::store::Store;

/// How long a call without an answer is made again with its token; EC2 remembers tokens for longer than
/// this. After it, what carries the batch's tag is all there is.
const REPLAY: jiff::SignedDuration = jiff::SignedDuration::from_mins(30);
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
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) token: String,
    pub(super) result: Result,
}

#[derive(Debug)]
pub(super) enum Result {
    /// It is to be made again. `stored` tells whether the batch is in the store.
    Again { stored: bool, reason: String },
    /// EC2 made these, and says this of what it didn't make.
    Dealt {
        batch: Batch,
        failures: Vec<Failure>,
    },
    /// EC2 made nothing.
    Refused { batch: Batch, error: CallError },
}

impl Caller {
    /// Stores the batch if it is not, calls EC2, and stores what came of it.
    pub(super) async fn call(self, batch: Batch, stored: bool) -> Ended {
        let token = batch.token.clone();
        let result = self.call_once(batch, stored).await;
        Ended { token, result }
    }

    async fn call_once(&self, batch: Batch, stored: bool) -> Result {
        let again = |stored, reason: String| Result::Again { stored, reason };
        if !stored && let Err(error) = self.put(&batch).await {
            return again(false, format!("the launch can't be stored: {error}"));
        }
        let age = clock::now().duration_since(batch.created_at);
        let answered = if age > REPLAY {
            self.adopt(&batch).await
        } else {
            self.budgets.create_fleet.spend().await;
            let answered = fleet::create(&self.clients.ec2, &batch).await;
            match answered {
                Err(error) if error.kind == Kind::TokenReused => self.adopt(&batch).await,
                answered => answered,
            }
        };
        match answered {
            Ok(answer) => {
                let dealt = Outcome::Dealt(batch.deal(answer.made));
                match self.settle(batch, dealt).await {
                    Ok(batch) => Result::Dealt {
                        batch,
                        failures: answer.failures,
                    },
                    Err(reason) => again(true, reason),
                }
            }
            Err(error) if error.kind == Kind::Throttled => {
                self.budgets.create_fleet.refused();
                again(true, error.text)
            }
            Err(error) if error.kind == Kind::Unknown => again(true, error.text),
            Err(error) => {
                let refused = Outcome::Refused(error.text.clone());
                match self.settle(batch, refused).await {
                    Ok(batch) => Result::Refused { batch, error },
                    Err(reason) => again(true, reason),
                }
            }
        }
    }

    /// Finds what a batch made by its tag.
    async fn adopt(&self, batch: &Batch) -> std::result::Result<fleet::Answer, CallError> {
        let name = format!("tag:{TAG_BATCH}");
        let values = vec![batch.token.clone()];
        let seen = describe::describe(&self.clients.ec2, &self.budgets, &name, values).await?;
        if seen.is_empty() {
            return Err(CallError {
                kind: Kind::Permanent,
                text: "EC2 did not answer the call, and has no instance of it".to_owned(),
            });
        }
        Ok(fleet::Answer {
            made: seen
                .into_iter()
                .map(|seen| Made {
                    instance: seen.id,
                    offering: seen.offering,
                })
                .collect(),
            failures: Vec::new(),
        })
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
