//! Where launches are ordered: equal ones share a call, what has nothing is not asked again for a while,
//! and what was asked without an answer is asked again as it was.

mod ask;
mod book;
mod call;
mod lessons;
mod resting;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use muster_core::{InstanceId, LaunchFailure, LaunchId, Offering};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ask::batch_of;
use self::book::{Book, Place};
pub(super) use self::call::Caller;
use self::call::{Ended, Result as CallResult, Standing};
use self::lessons::Verdict;
use self::resting::Resting;
use super::batch::{Alike, Batch, Failed, Made, Outcome};
use super::closed::Closed;
use super::knowledge::Knowledge;
use super::settings::Ec2Settings;
use crate::compute::HeldUp;

/// A launch waits this long for others like it, and in a stream of them this long in all.
const GATHER: Duration = Duration::from_millis(5);
const GATHER_MOST: Duration = Duration::from_millis(50);
/// The same while a call for others like it is under way: they come in numbers.
const GATHER_BUSY: Duration = Duration::from_millis(50);
const GATHER_BUSY_MOST: Duration = Duration::from_millis(500);
/// Launches in one call.
const MOST_IN_CALL: usize = 500;
/// Calls at a time.
const CALLS: usize = 8;
/// Calls for one launch before the pool is told that there is no capacity.
const ATTEMPTS: u32 = 4;
/// How long capacity rests from which EC2 takes instances back
/// (Karpenter, `pkg/controllers/interruption`: its unavailable-offerings cache, three minutes).
const TAKEN_BACK: Duration = Duration::from_secs(3 * 60);

/// How long it is known which launches were withdrawn. They are withdrawn again each minute.
const WITHDRAWN: Duration = Duration::from_secs(10 * 60);

/// A launch that waits for its instance.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) launch: LaunchId,
    pub(super) alike: Alike,
    pub(super) held_up: HeldUp,
    pub(super) answer: oneshot::Sender<Result<Made, Failed>>,
    /// Calls that were made for it and gave it nothing.
    pub(super) attempts: u32,
}

/// What the launcher is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Make an instance.
    Launch(Waiter),
    /// Make none, if that was not begun.
    Withdraw(LaunchId),
    /// EC2 takes instances of this capacity back.
    TakenBack(Offering),
    /// Which batches have no known outcome?
    Open(oneshot::Sender<BTreeSet<String>>),
    /// Was this instance dealt to a launch a short while ago?
    DealtLately(InstanceId, oneshot::Sender<bool>),
}

/// Launches that are alike and wait for a call.
#[derive(Debug)]
struct Group {
    waiters: Vec<Waiter>,
    first: Instant,
    last: Instant,
}

/// The launcher of one account.
#[derive(Debug)]
pub(super) struct Launcher {
    settings: Arc<Ec2Settings>,
    caller: Caller,
    known: watch::Receiver<Knowledge>,
    closed: Closed,
    resting: Resting,
    groups: BTreeMap<Alike, Group>,
    /// Launches that nobody needs, and when that was said.
    withdrawn: HashMap<LaunchId, Instant>,
    book: Book,
    calls: JoinSet<Ended>,
    /// What the launches of each call under way have in common.
    calling: BTreeMap<String, Alike>,
}

impl Launcher {
    /// A launcher that goes on with these batches.
    pub(super) fn new(
        settings: Arc<Ec2Settings>,
        caller: Caller,
        known: watch::Receiver<Knowledge>,
        batches: Vec<Batch>,
    ) -> Self {
        Self {
            settings,
            caller,
            known,
            closed: Closed::default(),
            resting: Resting::default(),
            groups: BTreeMap::new(),
            withdrawn: HashMap::new(),
            book: Book::restore(batches),
            calls: JoinSet::new(),
            calling: BTreeMap::new(),
        }
    }

    /// Serves until it is told to stop. Calls under way are dropped then: they are in the store.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                () = stop.cancelled() => return,
                order = orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => return,
                },
                Some(ended) = self.calls.join_next() => match ended {
                    Ok(ended) => self.ended(ended),
                    Err(error) => tracing::error!(%error, "the task of a launch failed"),
                },
                changed = self.known.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.tell_trouble();
                }
                () = sleep_until(wake) => {}
            }
            self.call_what_is_due();
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Launch(waiter) => match self.book.find(&waiter.launch) {
                Place::Dealt(made) => {
                    // It has left; it asks again.
                    let _ = waiter.answer.send(Ok(made));
                }
                Place::Open => self.book.attach(waiter),
                Place::Nowhere => self.queue(waiter),
            },
            Order::Withdraw(launch) => self.withdraw(launch),
            Order::TakenBack(offering) => {
                let why = "EC2 takes instances of it back";
                self.closed.close_offering(offering, TAKEN_BACK, why);
            }
            Order::Open(answer) => {
                // Nobody wants to know any more.
                let _ = answer.send(self.book.tokens());
            }
            Order::DealtLately(instance, answer) => {
                let _ = answer.send(self.book.dealt_lately(&instance));
            }
        }
    }

    /// Takes a launch out of its group. One that is being called, or has yet to come, is taken out when it
    /// would be put into one.
    fn withdraw(&mut self, launch: LaunchId) {
        let waiting = self.groups.values_mut();
        let waiting = waiting.flat_map(|group| {
            group
                .waiters
                .extract_if(.., |waiter| waiter.launch == launch)
        });
        let waiting: Vec<Waiter> = waiting.collect();
        self.groups.retain(|_, group| !group.waiters.is_empty());
        if waiting.is_empty() {
            let now = Instant::now();
            self.withdrawn
                .retain(|_, at| now.duration_since(*at) < WITHDRAWN);
            self.withdrawn.insert(launch, now);
        }
        fail(waiting, &withdrawn());
    }

    fn queue(&mut self, waiter: Waiter) {
        if self.withdrawn.remove(&waiter.launch).is_some() {
            return fail(vec![waiter], &withdrawn());
        }
        if let Some(trouble) = self.unready(&waiter.alike) {
            waiter.held_up.tell(&trouble);
        }
        let now = Instant::now();
        let group = self
            .groups
            .entry(waiter.alike.clone())
            .or_insert_with(|| Group {
                waiters: Vec::new(),
                first: now,
                last: now,
            });
        group.last = now;
        // The same launch twice is one launch.
        group.waiters.retain(|one| one.launch != waiter.launch);
        group.waiters.push(waiter);
    }

    /// Why nothing can be planned for such launches yet.
    fn unready(&self, alike: &Alike) -> Option<String> {
        // Those of the canary come with their image.
        let own = alike.canary.is_none();
        let pool = self.settings.pools.get(&alike.pool).filter(|_| own);
        self.known.borrow().lacks(pool.map(|pool| &pool.image))
    }

    fn tell_trouble(&self) {
        for (alike, group) in &self.groups {
            if let Some(trouble) = self.unready(alike) {
                for waiter in &group.waiters {
                    waiter.held_up.tell(&trouble);
                }
            }
        }
    }

    fn due_at(&self, key: &Alike, group: &Group) -> Option<Instant> {
        if self.unready(key).is_some() || self.calls.len() >= CALLS {
            // A change of what is known, or the end of a call, brings us back here.
            return None;
        }
        let (gather, most) = if self.calling.values().any(|other| other == key) {
            (GATHER_BUSY, GATHER_BUSY_MOST)
        } else {
            (GATHER, GATHER_MOST)
        };
        let gathered = if group.waiters.len() >= MOST_IN_CALL {
            group.first
        } else {
            (group.last + gather).min(group.first + most)
        };
        Some(self.resting.at_least(key, gathered))
    }

    fn next_wake(&self) -> Option<Instant> {
        let groups = self.groups.iter();
        let due = groups.filter_map(|(key, group)| self.due_at(key, group));
        let again = self.book.next_call().filter(|_| self.calls.len() < CALLS);
        due.chain(again).min()
    }

    fn call_what_is_due(&mut self) {
        let now = Instant::now();
        for (batch, standing) in self.book.due(CALLS.saturating_sub(self.calls.len())) {
            self.call(batch, standing);
        }
        while self.calls.len() < CALLS {
            let mut groups = self.groups.iter();
            let due =
                groups.find(|(key, group)| self.due_at(key, group).is_some_and(|at| at <= now));
            let Some(key) = due.map(|(key, _)| key.clone()) else {
                return;
            };
            self.flush(&key);
        }
    }

    /// Makes a batch of a group, or tells it that there is nothing to ask for.
    fn flush(&mut self, key: &Alike) {
        let Some(mut group) = self.groups.remove(key) else {
            return;
        };
        let rest = group
            .waiters
            .split_off(group.waiters.len().min(MOST_IN_CALL));
        let waiters = group.waiters;
        if !rest.is_empty() {
            let left = Group {
                waiters: rest,
                ..group
            };
            self.groups.insert(key.clone(), left);
        }
        let settings = &self.settings;
        let made = batch_of(settings, &self.known.borrow(), &self.closed, key, &waiters);
        match made {
            Ok(batch) => {
                self.book.begin(batch.clone(), waiters);
                self.call(batch, Standing::New);
            }
            Err(failed) => fail(waiters, &failed),
        }
    }

    fn call(&mut self, batch: Batch, standing: Standing) {
        self.calling.insert(batch.token.clone(), batch.alike());
        self.calls.spawn(self.caller.clone().call(batch, standing));
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { token, result } = ended;
        self.calling.remove(&token);
        match result {
            CallResult::Again { standing, reason } => {
                tracing::warn!(batch = token, reason, "launches have no answer yet");
                self.book.again(&token, standing, &reason);
            }
            CallResult::Dealt { batch, failures } => {
                let Some(Outcome::Dealt(dealt)) = batch.outcome.clone() else {
                    return;
                };
                let (asked, got) = (batch.launches.len(), dealt.len());
                tracing::info!(
                    batch = token,
                    pool = batch.pool.as_str(),
                    asked,
                    got,
                    market = %batch.request.market,
                    failures = ?failures.as_ref().map(Vec::len),
                    "EC2 answered"
                );
                let failures = failures.as_deref();
                let verdict = lessons::from_answer(&mut self.closed, &batch, failures, got);
                let without = self.book.settle(&token, &dealt);
                self.go_on(without, verdict);
            }
            CallResult::Refused { batch, error } => {
                tracing::warn!(
                    batch = token,
                    pool = batch.pool.as_str(),
                    reason = error.text,
                    "EC2 launches nothing"
                );
                let verdict = lessons::from_refusal(&mut self.closed, &batch, &error);
                let without = self.book.settle(&token, &BTreeMap::new());
                self.go_on(without, verdict);
            }
        }
    }

    /// Does with those of one batch who got nothing what its answer says.
    fn go_on(&mut self, waiters: Vec<Waiter>, verdict: Verdict) {
        let Some(first) = waiters.first() else {
            return;
        };
        let key = first.alike.clone();
        match verdict {
            Verdict::GiveUp(failed) => fail(waiters, &failed),
            Verdict::TryOthers(why) => {
                self.resting.wake(&key);
                for waiter in waiters {
                    self.try_others(waiter, &why);
                }
            }
            Verdict::TryLater(why) => {
                self.resting.rest(key);
                for waiter in waiters {
                    waiter.held_up.tell(&why);
                    self.queue(waiter);
                }
            }
        }
    }

    fn try_others(&mut self, mut waiter: Waiter, why: &str) {
        waiter.attempts += 1;
        if waiter.attempts < ATTEMPTS {
            self.queue(waiter);
            return;
        }
        let failed = Failed {
            failure: LaunchFailure::Capacity,
            detail: format!("EC2 gave nothing in {ATTEMPTS} calls; at last: {why}"),
        };
        fail(vec![waiter], &failed);
    }
}

fn withdrawn() -> Failed {
    Failed {
        failure: LaunchFailure::Withdrawn,
        detail: "nobody needs it any more".to_owned(),
    }
}

fn fail(waiters: Vec<Waiter>, failed: &Failed) {
    for waiter in waiters {
        // One who has left asks again, and is told again.
        let _ = waiter.answer.send(Err(failed.clone()));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
