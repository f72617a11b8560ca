//! Carries out durable effects: each in a task of its own that tries until it has an answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use muster_core::{
    AccountName, Effect, Event, ImageId, LaunchFailure, LaunchId, MintFailure, PoolName, PoolSpec,
    RunnerName, Scope, Shape,
};
use tokio::sync::{Semaphore, mpsc};

use super::messages::Vault;
use super::reruns::{self, Watched};
use crate::backoff::Backoff;
use crate::compute::{HeldUp, LaunchError, LaunchOrder, Provider};
use crate::github::{GithubClient, GithubError, MintError};
use crate::store::Ledger;
use crate::telemetry::{Metrics, StrayState};

/// Effects that are under way at once; the others wait in line. GitHub allows 100 requests at once
/// (<https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>).
const AT_ONCE: usize = 64;
/// First wait after a failure that passes by itself.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Carries out durable effects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Executor {
    github: GithubClient,
    providers: Arc<HashMap<AccountName, Provider>>,
    pools: Arc<HashMap<PoolName, PoolSpec>>,
    vault: Vault,
    metrics: Metrics,
    turns: Arc<Semaphore>,
    watched: Watched,
    /// Asked whether this coordinator leads, once there is one.
    ledger: Option<Arc<dyn Ledger>>,
}

/// A try that gave no answer: how long the other side asked to wait, and why.
pub(super) struct Again {
    pub(super) after: Duration,
    pub(super) reason: String,
}

impl Executor {
    /// Makes an executor over the providers of the accounts that the pools name.
    #[must_use]
    pub fn new(
        github: GithubClient,
        providers: HashMap<AccountName, Provider>,
        pools: &[PoolSpec],
        metrics: Metrics,
    ) -> Self {
        let pools = pools
            .iter()
            .map(|pool| (pool.name.clone(), pool.clone()))
            .collect();
        Self {
            github,
            providers: Arc::new(providers),
            pools: Arc::new(pools),
            vault: Vault::default(),
            metrics,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            watched: Watched::default(),
            ledger: None,
        }
    }

    /// Has what can't be told from what another did wait for this ledger's word that nobody else leads.
    #[must_use]
    pub(super) fn fenced_by(self, ledger: Arc<dyn Ledger>) -> Self {
        Self {
            ledger: Some(ledger),
            ..self
        }
    }

    async fn leads(&self) -> Result<(), Again> {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        // One that doesn't lead any more is ended soon, and this with it.
        ledger.confirm_lead().await.map_err(|error| Again {
            after: Duration::ZERO,
            reason: format!("nobody knows whether this coordinator leads still: {error}"),
        })
    }

    /// Where configurations wait for their agents.
    #[must_use]
    pub fn vault(&self) -> Vault {
        self.vault.clone()
    }

    /// Tries until there is an answer. Gives none for effects that have no answer.
    pub(super) async fn carry_out(
        self,
        effect: Effect,
        held_up: mpsc::Sender<Event>,
    ) -> Option<Event> {
        let key = effect.key();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let again = {
                let _turn = if self.needs_turn(&effect) {
                    Some(self.turns.acquire().await.ok()?)
                } else {
                    None
                };
                match self.try_once(&effect, &held_up).await {
                    Ok(event) => return event,
                    Err(again) => again,
                }
            };
            let wait = backoff.wait_at_least(again.after);
            if let Some(launch) = effect.launch() {
                // A hint for people: where there is no room for it, the next try tells again.
                let reason = again.reason.clone();
                let _ = held_up.try_send(Event::HeldUp {
                    launch: launch.clone(),
                    reason,
                });
            }
            tracing::warn!(
                effect = key,
                tries = backoff.tries(),
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                reason = again.reason,
                "effect not carried out yet"
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// Whether an effect waits in line with the others: not if its provider gathers what comes together,
    /// as it could then gather no more than the line lets through, and not if it is one that waits for hours.
    fn needs_turn(&self, effect: &Effect) -> bool {
        if matches!(effect, Effect::WatchRun { .. }) {
            return false;
        }
        let account = match effect {
            Effect::Launch { pool, .. } => self.pools.get(pool).map(|pool| &pool.account),
            Effect::Terminate { account, .. } | Effect::TerminateStray { account, .. } => {
                Some(account)
            }
            _ => None,
        };
        let provider = account.and_then(|account| self.providers.get(account));
        !provider.is_some_and(Provider::gathers)
    }

    async fn try_once(
        &self,
        effect: &Effect,
        held_up: &mpsc::Sender<Event>,
    ) -> Result<Option<Event>, Again> {
        match effect {
            Effect::Launch {
                launch,
                pool,
                shape,
                image,
            } => {
                let held_up = HeldUp::of(launch.clone(), held_up.clone());
                let canary = image.as_ref();
                self.launch(launch, pool, (shape, canary), held_up)
                    .await
                    .map(Some)
            }
            Effect::Mint {
                launch,
                pool,
                name,
                shape,
            } => self.mint(launch, pool, name, shape).await.map(Some),
            Effect::Deregister {
                launch,
                scope,
                name,
                id,
            } => {
                let answer = match id {
                    Some(id) => self
                        .github
                        .delete_runner(scope, *id)
                        .await
                        .map_err(|error| again(&error)),
                    None => self.deregister_by_name(scope, name).await,
                }?;
                let (launch, name) = (launch.clone(), name.clone());
                Ok(Some(Event::Deregistered {
                    launch,
                    name,
                    answer,
                }))
            }
            Effect::WatchRun { run } => {
                Ok(Some(reruns::watch(&self.github, &self.watched, run).await))
            }
            Effect::Rerun { run, call } => {
                let leads = self.leads();
                reruns::rerun(&self.github, leads, run, call)
                    .await
                    .map(Some)
            }
            Effect::Terminate {
                launch,
                account,
                instance,
                at_once,
            } => {
                let gone = self
                    .provider(account)?
                    .terminate(instance, *at_once)
                    .await
                    .map_err(|error| Again {
                        after: Duration::ZERO,
                        reason: error.to_string(),
                    })?;
                Ok(Some(Event::Terminated {
                    launch: launch.clone(),
                    gone,
                }))
            }
            Effect::TerminateStray { account, instance } => {
                self.provider(account)?
                    .terminate(instance, true)
                    .await
                    .map_err(|error| Again {
                        after: Duration::ZERO,
                        reason: error.to_string(),
                    })?;
                self.metrics.stray(StrayState::Ended);
                Ok(None)
            }
            Effect::Withdraw { launch, account } => {
                if let Some(provider) = self.providers.get(account) {
                    provider.withdraw(launch.clone()).await;
                }
                Ok(None)
            }
            Effect::CloseOffering { account, offering } => {
                if let Some(provider) = self.providers.get(account) {
                    provider.close_offering(offering.clone()).await;
                }
                Ok(None)
            }
            Effect::Assign { .. } | Effect::Drain { .. } | Effect::Retire { .. } => Ok(None),
        }
    }

    async fn launch(
        &self,
        launch: &LaunchId,
        pool: &PoolName,
        (shape, canary): (&Shape, Option<&ImageId>),
        held_up: HeldUp,
    ) -> Result<Event, Again> {
        let failed = |failure, detail: String| {
            Ok(Event::LaunchFailed {
                launch: launch.clone(),
                failure,
                detail,
            })
        };
        let Some(spec) = self.pools.get(pool) else {
            return failed(
                LaunchFailure::Permanent,
                format!("pool {pool} is not configured"),
            );
        };
        let order = LaunchOrder {
            launch: launch.clone(),
            pool: pool.clone(),
            shape: shape.clone(),
            canary: canary.cloned(),
            lifetime: spec.limits.lifetime,
            held_up,
        };
        match self.provider(&spec.account)?.launch(order).await {
            Ok(launched) => {
                self.metrics.launch(Ok(()));
                Ok(Event::Launched {
                    launch: launch.clone(),
                    instance: launched.instance,
                    offering: launched.offering,
                })
            }
            Err(LaunchError::Failed { failure, detail }) => {
                self.metrics.launch(Err(failure));
                if failure == LaunchFailure::Permanent {
                    tracing::warn!(
                        launch = launch.as_str(),
                        pool = pool.as_str(),
                        account = spec.account.as_str(),
                        reason = detail,
                        "a launch fails until somebody changes something; the pool is held back"
                    );
                }
                failed(failure, detail)
            }
            Err(LaunchError::Unknown(reason)) => Err(Again {
                after: Duration::ZERO,
                reason,
            }),
        }
    }

    async fn mint(
        &self,
        launch: &LaunchId,
        pool: &PoolName,
        name: &RunnerName,
        shape: &Shape,
    ) -> Result<Event, Again> {
        let (launch, name) = (launch.clone(), name.clone());
        let Some(spec) = self.pools.get(pool) else {
            let failure = MintFailure::Refused;
            let detail = format!("pool {pool} is not configured");
            return Ok(Event::MintFailed {
                launch,
                name,
                failure,
                detail,
            });
        };
        let labels: BTreeSet<String> = spec.labels.union(&shape.labels).cloned().collect();
        let group = &spec.runner_group;
        match self
            .github
            .generate_jitconfig(&spec.scope, &name, group, &labels)
            .await
        {
            Ok(minted) => {
                self.vault
                    .put(launch.clone(), name.clone(), minted.encoded_jit_config);
                Ok(Event::Minted {
                    launch,
                    name,
                    id: minted.id,
                })
            }
            Err(MintError::NameTaken) => {
                let failure = MintFailure::NameTaken;
                let detail = MintError::NameTaken.to_string();
                Ok(Event::MintFailed {
                    launch,
                    name,
                    failure,
                    detail,
                })
            }
            Err(MintError::Refused(detail)) => {
                let failure = MintFailure::Refused;
                Ok(Event::MintFailed {
                    launch,
                    name,
                    failure,
                    detail,
                })
            }
            Err(MintError::Retry(later)) => Err(Again {
                after: later.after,
                reason: later.reason,
            }),
        }
    }

    async fn deregister_by_name(
        &self,
        scope: &Scope,
        name: &RunnerName,
    ) -> Result<muster_core::DeregisterAnswer, Again> {
        match self
            .github
            .find_runner(scope, name)
            .await
            .map_err(|error| again(&error))?
        {
            Some(runner) => self
                .github
                .delete_runner(scope, runner.id)
                .await
                .map_err(|error| again(&error)),
            None => Ok(muster_core::DeregisterAnswer::Absent),
        }
    }

    fn provider(&self, account: &AccountName) -> Result<&Provider, Again> {
        self.providers.get(account).ok_or_else(|| Again {
            after: LONGEST_WAIT,
            reason: format!("account {account} is not configured any more"),
        })
    }
}

pub(super) fn again(error: &GithubError) -> Again {
    // What GitHub refuses for good now (a missing permission, a deleted installation) an operator may
    // mend; a registration must not be forgotten before it is gone.
    let reason = match error {
        GithubError::Later(later) => later.reason.clone(),
        other => other.to_string(),
    };
    let after = error.retry_after().unwrap_or(LONGEST_WAIT);
    Again { after, reason }
}
