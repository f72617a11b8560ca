//! The EC2 provider: instances by CreateFleet, in one account and region.
//!
//! What may go wrong between a call and its answer is the point of it:
//! - a batch of launches is stored with its client token before it is asked for, and asked for again with
//!   the same token until there is an answer (`launcher/`);
//! - capacity that ran out is not asked for again for a while (`closed`), and the next in line is tried:
//!   other offerings, then on-demand if the pool allows it (`plan`);
//! - the limits of EC2's API are budgets on our side (`budget`), and what comes together is asked
//!   together (`batcher`);
//! - that EC2 doesn't find an instance proves nothing: the ledger keeps it until a list has lacked it for
//!   long enough ([`ABSENCE`]).

mod batch;
mod batcher;
mod budget;
mod catalog;
mod clients;
mod closed;
mod describe;
mod error;
mod fleet;
mod images;
mod knowledge;
mod launched;
mod launcher;
mod notices;
mod plan;
mod quota;
mod reach;
mod settings;
mod terminate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{InstanceId, LaunchId, Marked, Offering};
use tokio::sync::{mpsc, oneshot, watch};

use self::batch::{Alike, Batch};
use self::batcher::Batcher;
use self::budget::Budgets;
use self::clients::Clients;
use self::describe::Seen;
pub(crate) use self::error::{call_error, is_throttle};
use self::images::{ImageWatch, SeenImages, seen_images};
use self::knowledge::{Knowledge, Learner};
use self::launched::{LaunchedInstances, StoredBatches};
use self::launcher::{Caller, Launcher, Order, Waiter};
pub use self::settings::{
    Ec2Pool, Ec2Settings, ImageSource, Pace, RoleSettings, SpotStrategy, Template, TemplateKey,
};
use super::{
    Images, InstanceFacts, InstanceState, LaunchError, LaunchOrder, Launched, Listed, Notice,
    ProviderError,
};
pub use crate::aws::Given;
use crate::clock;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// How long an instance must be missing from EC2's lists before it counts as gone. Those that have ended
/// stay in the lists for about an hour, so that a real end is seen long before
/// (<https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>).
pub const ABSENCE: Duration = Duration::from_secs(15 * 60);
/// Launches that may wait to be taken; those who order more wait themselves.
const ORDERS: usize = 4_096;
/// How long what came of a batch is looked for after a restart.
const SETTLED: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Instances of one account and region. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ec2Provider {
    settings: Arc<Ec2Settings>,
    clients: Clients,
    budgets: Arc<Budgets>,
    orders: mpsc::Sender<Order>,
    ends: Batcher<terminate::End, terminate::Answer>,
    questions: Batcher<InstanceId, describe::Answer>,
    launched: LaunchedInstances,
    store: Store,
    stored: StoredBatches,
    images: watch::Receiver<Images>,
    seen: watch::Sender<SeenImages>,
}

impl Ec2Provider {
    /// A provider that goes on with the batches in the store. Its work is done by `tasks`.
    /// AWS need not be reachable: nobody is called before this returns.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn start(
        settings: Ec2Settings,
        store: Store,
        given: Given,
        tasks: &Tasks,
    ) -> Result<Self, StoreError> {
        let stop = tasks.stop();
        let settings = Arc::new(settings);
        let pace = given.pace;
        let clients = Clients::new(&settings, given).await;
        let budgets = Arc::new(Budgets::new());
        let batches = stored_batches(&settings, &store).await?;

        let (known, knowledge) = watch::channel(Knowledge::default());
        let learner = Learner {
            settings: Arc::clone(&settings),
            clients: clients.clone(),
            budgets: Arc::clone(&budgets),
            known,
            every: pace.images,
        };
        tasks.spawn("ec2 images", learner.run(stop.clone()));
        let (seen, newest) = watch::channel(SeenImages::new());
        let (told, images) = watch::channel(Images::default());
        let images_watch = ImageWatch {
            settings: Arc::clone(&settings),
            clients: clients.clone(),
            budgets: Arc::clone(&budgets),
            known: knowledge.clone(),
            seen: newest,
            images: told,
        };
        tasks.spawn("ec2 runners", images_watch.run(stop.clone()));
        let (orders, taken) = mpsc::channel(ORDERS);
        let launched = LaunchedInstances::restore(&batches);
        let caller = Caller {
            clients: clients.clone(),
            budgets: Arc::clone(&budgets),
            store: store.clone(),
            launched: launched.clone(),
            pace,
        };
        let launcher = Launcher::new(Arc::clone(&settings), caller, knowledge, batches);
        tasks.spawn("ec2 launches", launcher.run(taken, stop.clone()));
        let (client, spent) = (clients.ec2.clone(), Arc::clone(&budgets));
        let end = move |batch| terminate::terminate(client.clone(), Arc::clone(&spent), batch);
        let (ends, serve) = Batcher::new(terminate::GATHER, end, stop.clone());
        tasks.spawn("ec2 ends", serve);
        let (client, spent) = (clients.ec2.clone(), Arc::clone(&budgets));
        let ask = move |batch| describe::facts(client.clone(), Arc::clone(&spent), batch);
        let (questions, serve) = Batcher::new(describe::GATHER, ask, stop);
        tasks.spawn("ec2 questions", serve);
        Ok(Self {
            settings,
            clients,
            budgets,
            orders,
            ends,
            questions,
            launched,
            store,
            stored: StoredBatches::default(),
            images,
            seen,
        })
    }

    pub(super) async fn launch(&self, order: LaunchOrder) -> Result<Launched, LaunchError> {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter {
            launch: order.launch,
            alike: Alike {
                pool: order.pool,
                shape: order.shape,
                canary: order.canary,
            },
            held_up: order.held_up,
            answer,
            attempts: 0,
        };
        let stopping = |()| LaunchError::Unknown("the coordinator is stopping".to_owned());
        let sent = self.orders.send(Order::Launch(waiter)).await;
        sent.map_err(|_| stopping(()))?;
        match answered.await.map_err(|_| stopping(()))? {
            Ok(made) => Ok(Launched {
                instance: made.instance,
                offering: Some(made.offering),
            }),
            Err(failed) => Err(LaunchError::Failed {
                failure: failed.failure,
                detail: failed.detail,
            }),
        }
    }

    pub(super) async fn terminate(
        &self,
        instance: &InstanceId,
        at_once: bool,
    ) -> Result<bool, ProviderError> {
        let end = terminate::End {
            instance: instance.clone(),
            at_once,
        };
        match self.ends.ask(end).await {
            Some(answer) => answer.map_err(|error| ProviderError(error.text)),
            None => Err(ProviderError("the coordinator is stopping".to_owned())),
        }
    }

    pub(super) async fn describe(
        &self,
        instance: &InstanceId,
    ) -> Result<Option<InstanceFacts>, ProviderError> {
        let answer = self.questions.ask(instance.clone()).await;
        let answer =
            answer.ok_or_else(|| ProviderError("the coordinator is stopping".to_owned()))?;
        let facts = answer.map_err(|error| ProviderError(error.text))?;
        Ok(facts.map(|facts| InstanceFacts {
            launched_as: self.launched.get(instance),
            ..facts
        }))
    }

    pub(super) async fn list(&self) -> Result<Listed, ProviderError> {
        // Asked before the list: what is settled in between is in the ledger by the next one.
        let open = self.ask(Order::Open).await?;
        let name = format!("tag:{}", describe::TAG_COORDINATOR);
        let values = vec![self.settings.coordinator.clone()];
        let seen = describe::describe(&self.clients.ec2, &self.budgets, &name, values)
            .await
            .map_err(|error| ProviderError(error.text))?;
        let lost = self.lost_batches(&seen).await?;
        let newest = seen_images(&self.settings, &self.images.borrow(), seen.iter());
        self.seen.send_if_modified(|seen| {
            // A pool that has none now keeps what was seen.
            let before = seen.clone();
            seen.extend(newest);
            *seen != before
        });
        let mut listed = Listed::default();
        for seen in seen {
            let batch = seen.tags.get(describe::TAG_BATCH);
            match seen.state {
                InstanceState::Terminated => listed.gone.push((seen.id, None)),
                // Whose these are is known once the batch is settled.
                _ if batch.is_some_and(|token| open.contains(token)) => {}
                _ => listed.alive.push(Marked {
                    origin: seen.origin(&lost),
                    instance: seen.id,
                    launch: None,
                }),
            }
        }
        Ok(listed)
    }

    /// The batches of these instances that the store knows nothing of: one is stored before it is asked for, so
    /// these were lost with the store that had them.
    async fn lost_batches(&self, seen: &[Seen]) -> Result<BTreeSet<String>, ProviderError> {
        let tokens = seen
            .iter()
            .filter_map(|it| it.tags.get(describe::TAG_BATCH));
        let tokens: BTreeSet<&String> = tokens.collect();
        let mut lost = BTreeSet::new();
        for token in self.stored.unknown(&tokens) {
            let has = self.store.has_launch_batch(&token).await;
            if has.map_err(|error| ProviderError(error.to_string()))? {
                self.stored.add(token);
            } else {
                lost.insert(token);
            }
        }
        Ok(lost)
    }

    /// Asks the launcher.
    async fn ask<A>(
        &self,
        question: impl FnOnce(oneshot::Sender<A>) -> Order,
    ) -> Result<A, ProviderError> {
        let (answer, answered) = oneshot::channel();
        let stopping = || ProviderError("the coordinator is stopping".to_owned());
        let sent = self.orders.send(question(answer)).await;
        sent.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }

    pub(super) async fn may_be_ours_soon(
        &self,
        instance: &InstanceId,
    ) -> Result<bool, ProviderError> {
        let asked = instance.clone();
        let dealt = |answer| Order::DealtLately(asked, answer);
        if self.ask(dealt).await? {
            return Ok(true);
        }
        let open = self.ask(Order::Open).await?;
        if open.is_empty() {
            return Ok(false);
        }
        Ok(match self.describe(instance).await? {
            Some(facts) => facts.batch.is_some_and(|token| open.contains(&token)),
            // Not known, yet or any more.
            None => true,
        })
    }

    pub(super) async fn notices(&self) -> Result<Vec<Notice>, ProviderError> {
        let Some(queue) = &self.settings.queue_url else {
            return std::future::pending().await;
        };
        let place = (
            self.settings.account_id.as_str(),
            self.settings.region.as_str(),
        );
        let received = notices::receive(&self.clients.sqs, queue, place).await?;
        // These come again, and are put away then; what matters must not wait for that.
        if let Err(error) = self.acknowledge(received.others).await {
            tracing::warn!(account = self.settings.name.as_str(), %error, "messages can't be put away");
        }
        Ok(received.notices)
    }

    pub(super) async fn acknowledge(&self, receipts: Vec<String>) -> Result<(), ProviderError> {
        match &self.settings.queue_url {
            Some(queue) => notices::delete(&self.clients.sqs, queue, receipts).await,
            None => Ok(()),
        }
    }

    pub(super) async fn withdraw(&self, launch: LaunchId) {
        // As below.
        let _ = self.orders.send(Order::Withdraw(launch)).await;
    }

    pub(super) fn images(&self) -> watch::Receiver<Images> {
        self.images.clone()
    }

    pub(super) async fn close_offering(&self, offering: Offering) {
        // A coordinator that stops launches nothing more.
        let _ = self.orders.send(Order::TakenBack(offering)).await;
    }
}

async fn stored_batches(settings: &Ec2Settings, store: &Store) -> Result<Vec<Batch>, StoreError> {
    let after = clock::now().checked_sub(SETTLED).unwrap_or(Timestamp::MIN);
    let rows = store.launch_batches(&settings.name, after).await?;
    let mut batches = Vec::new();
    for row in rows {
        match Batch::from_row(&row) {
            Ok(batch) => batches.push(batch),
            // Its instances, if there are any, are found by their tag and ended.
            Err(error) => {
                tracing::error!(batch = row.token, %error, "a stored batch of launches can't be read");
            }
        }
    }
    Ok(batches)
}
