//! A cloud: instances that come, are listed late, are taken back, and end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{
    Effect, InstanceId, Interruption, LaunchFailure, LaunchId, Marked, PoolName, Shape,
};
use tokio_util::sync::CancellationToken;

use super::host::{self, News};
use super::judge;
use super::plan::Planted;
use super::run::{ACCOUNT_MAX, LIFETIME, POOLS};
use super::world::{Fate, Service, World};
use crate::compute::{
    LaunchError, LaunchOrder, Launched, Listed, Notice, NoticeKind, ProviderError,
};

/// How long an instance must be missing from the lists before it counts as gone.
pub(crate) const ABSENCE: Duration = Duration::from_secs(300);
/// Lists lag behind by up to so much, in milliseconds.
const LAG: (u64, u64) = (0, 30_000);
/// Ended instances are listed as such for a while.
const SHOWN: Duration = Duration::from_secs(20 * 60);
/// What an instance may outlive its pool's limit by: an outage, and the time that ends take.
const OVERTIME: Duration = Duration::from_secs(15 * 60);
/// A notice is shown again until it is acknowledged.
const SHOWN_AGAIN: Duration = Duration::from_secs(30);
/// Time from the notice of an interruption to the end of the instance.
pub(super) const NOTICE: Duration = Duration::from_secs(120);

/// All instances.
#[derive(Debug, Default)]
pub(super) struct Instances {
    made: u64,
    pub(super) all: BTreeMap<InstanceId, Instance>,
    tokens: BTreeMap<LaunchId, InstanceId>,
    notices: BTreeMap<u64, Waiting>,
    receipts: u64,
}

/// One instance.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) launch: LaunchId,
    pub(super) pool: PoolName,
    born: Timestamp,
    listed_from: Timestamp,
    pub(super) ended: Option<Timestamp>,
    pub(super) power: CancellationToken,
}

#[derive(Clone, Debug)]
struct Waiting {
    notice: Notice,
    hidden_until: Timestamp,
}

impl Instance {
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.born)).unwrap_or_default()
    }
}

impl Instances {
    pub(super) fn alive(&self) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        self.all.iter().filter(|(_, each)| each.ended.is_none())
    }

    fn notice(&mut self, instance: &InstanceId, kind: NoticeKind, now: Timestamp) {
        self.receipts += 1;
        let notice = Notice {
            instance: instance.clone(),
            kind,
            receipt: self.receipts.to_string(),
        };
        let hidden_until = now;
        self.notices.insert(
            self.receipts,
            Waiting {
                notice,
                hidden_until,
            },
        );
    }
}

/// Ends an instance, for whatever reason. It is gone at once; others hear of it later.
pub(super) fn end(world: &World, id: &InstanceId, why: &str) {
    let now = world.now();
    let born = {
        let mut state = world.lock();
        let Some(instance) = state.cloud.all.get_mut(id) else {
            return;
        };
        if instance.ended.is_some() {
            return;
        }
        instance.ended = Some(now);
        instance.power.cancel();
        let born = instance.born;
        state.cloud.notice(id, NoticeKind::Gone, now);
        born
    };
    world.tell(format!("{} ended: {why}", id.as_str()));
    super::github::lost_host(world, id);
    let age = Duration::try_from(now.duration_since(born)).unwrap_or_default();
    if age > LIFETIME + OVERTIME {
        world.violated(&format!("invariant 5: {} lived for {age:?}", id.as_str()));
    }
    world.news.notify_waiters();
}

/// EC2 takes an instance back in two minutes; its host is told, and so is the account.
pub(super) fn interrupt(world: &World, id: &InstanceId, kind: Interruption) {
    let now = world.now();
    let deadline = (kind == Interruption::Spot)
        .then(|| now.checked_add(NOTICE).ok())
        .flatten();
    {
        let mut state = world.lock();
        let told = NoticeKind::Interrupted { kind, deadline };
        state.cloud.notice(id, told, now);
    }
    world.tell(format!("{} gets a notice: {kind:?}", id.as_str()));
    host::tell(world, id, News::Interrupted(kind, deadline));
    world.news.notify_waiters();
    if deadline.is_some() {
        let (world, id) = (world.clone(), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(NOTICE).await;
            end(&world, &id, "taken back");
        });
    }
}

/// The way of one process to the cloud.
#[derive(Clone, Debug)]
pub struct Cloud {
    pub(super) world: World,
    pub(super) life: u64,
}

fn unreachable() -> ProviderError {
    ProviderError("the cloud can't be reached".to_owned())
}

impl Cloud {
    pub(crate) async fn launch(&self, order: LaunchOrder) -> Result<Launched, LaunchError> {
        self.world.pause(self.life, "before a launch").await;
        let fate = self.world.fate(Service::Cloud);
        if fate == Fate::Failed {
            return Err(LaunchError::Unknown("no answer".to_owned()));
        }
        let made = self.make(&order);
        self.world.pause(self.life, "after a launch").await;
        match made {
            _ if fate == Fate::Unanswered => Err(LaunchError::Unknown("answer lost".to_owned())),
            Some(instance) => Ok(Launched {
                instance,
                offering: None,
            }),
            None => Err(LaunchError::Failed {
                failure: LaunchFailure::Capacity,
                detail: "InsufficientInstanceCapacity".to_owned(),
            }),
        }
    }

    fn make(&self, order: &LaunchOrder) -> Option<InstanceId> {
        let now = self.world.now();
        let mut state = self.world.lock();
        if let Some(made) = state.cloud.tokens.get(&order.launch)
            && state.plan.planted != Some(Planted::NewToken)
        {
            return Some(made.clone());
        }
        let none = state.plan.no_capacity;
        if state.chance(none) {
            return None;
        }
        let intent = Effect::Launch {
            launch: order.launch.clone(),
            pool: order.pool.clone(),
            shape: Shape::default(),
            image: None,
        };
        let intended = state.disk.wants(&intent.key());
        state.cloud.made += 1;
        let id = InstanceId::new(format!("i-{:017x}", state.cloud.made));
        let lag = state.between(LAG.0, LAG.1);
        let power = CancellationToken::new();
        let instance = Instance {
            launch: order.launch.clone(),
            pool: order.pool.clone(),
            born: now,
            listed_from: now.saturating_add(lag).unwrap_or(now),
            ended: None,
            power: power.clone(),
        };
        state.cloud.all.insert(id.clone(), instance);
        let before = state.cloud.tokens.insert(order.launch.clone(), id.clone());
        let over = over_its_maximum(&state.cloud, &order.pool);
        drop(state);
        self.world.tell(format!(
            "life {} launched {} as {}",
            self.life,
            order.launch,
            id.as_str()
        ));
        if !intended {
            let what = format!(
                "invariant 2: {} is launched and no intent is stored",
                order.launch
            );
            self.world.violated(&what);
        }
        if before.is_some() {
            let what = format!("invariant 10: {} was launched twice", order.launch);
            self.world.violated(&what);
        }
        if let Some(over) = over {
            self.world.violated(&format!("invariant 6: {over}"));
        }
        host::boot(&self.world, &id, &order.launch, &order.pool, power);
        Some(id)
    }

    pub(crate) async fn terminate(&self, instance: &InstanceId) -> Result<bool, ProviderError> {
        self.world.pause(self.life, "before an end").await;
        let fate = self.world.fate(Service::Cloud);
        if fate == Fate::Failed {
            return Err(unreachable());
        }
        let (forgotten, hangs) = {
            let mut state = self.world.lock();
            let forgets = state.plan.planted == Some(Planted::ForgottenReap);
            let hangs = state.plan.end_hangs;
            (forgets && state.chance(0.2), state.chance(hangs))
        };
        if hangs {
            self.world.pause(self.life, "after an end that hangs").await;
            return Ok(false);
        }
        let one_more = self.one_more();
        for instance in one_more.iter().chain((!forgotten).then_some(instance)) {
            let wrong = judge::ends(&self.world.lock(), instance, self.world.now());
            if let Some(what) = wrong {
                self.world.violated(&what);
            }
            end(&self.world, instance, &format!("life {} asked", self.life));
        }
        self.world.pause(self.life, "after an end").await;
        if fate == Fate::Unanswered {
            return Err(unreachable());
        }
        Ok(forgotten || self.world.lock().chance(0.5))
    }

    /// An instance that was not meant, if that fault is planted.
    fn one_more(&self) -> Option<InstanceId> {
        let mut state = self.world.lock();
        if state.plan.planted != Some(Planted::WrongEnd) || !state.chance(0.1) {
            return None;
        }
        let alive: Vec<_> = state.cloud.alive().map(|(id, _)| id.clone()).collect();
        let at = state.below(alive.len());
        alive.get(at).cloned()
    }

    pub(crate) async fn list(&self) -> Result<Listed, ProviderError> {
        self.world.pause(self.life, "before a list").await;
        if self.world.fate(Service::Cloud) == Fate::Failed {
            return Err(unreachable());
        }
        let now = self.world.now();
        let mut listed = Listed::default();
        {
            let state = self.world.lock();
            for (id, each) in &state.cloud.all {
                let launch = Some(each.launch.clone());
                match each.ended {
                    None if each.listed_from <= now => listed.alive.push(Marked {
                        instance: id.clone(),
                        launch,
                        origin: None,
                    }),
                    Some(ended) if now.duration_since(ended).unsigned_abs() < SHOWN => {
                        listed.gone.push((id.clone(), launch));
                    }
                    None | Some(_) => {}
                }
            }
        }
        self.world.pause(self.life, "after a list").await;
        Ok(listed)
    }

    pub(crate) async fn notices(&self) -> Result<Vec<Notice>, ProviderError> {
        loop {
            self.world.pause(self.life, "before notices").await;
            if self.world.fate(Service::Cloud) == Fate::Failed {
                return Err(unreachable());
            }
            let now = self.world.now();
            let shown: Vec<Notice> = {
                let mut state = self.world.lock();
                let waiting = state.cloud.notices.values_mut();
                let waiting = waiting.filter(|each| each.hidden_until <= now);
                waiting
                    .map(|each| {
                        each.hidden_until = now.saturating_add(SHOWN_AGAIN).unwrap_or(now);
                        each.notice.clone()
                    })
                    .collect()
            };
            if !shown.is_empty() {
                return Ok(shown);
            }
            self.world.rest(500, 2_000).await;
        }
    }

    pub(crate) async fn acknowledge(&self, receipts: Vec<String>) -> Result<(), ProviderError> {
        self.world
            .pause(self.life, "before an acknowledgement")
            .await;
        if self.world.fate(Service::Cloud) == Fate::Failed {
            return Err(unreachable());
        }
        let mut state = self.world.lock();
        for receipt in receipts {
            let number = receipt.parse().unwrap_or_default();
            state.cloud.notices.remove(&number);
        }
        Ok(())
    }

    pub(crate) async fn may_be_ours_soon(
        &self,
        instance: &InstanceId,
    ) -> Result<bool, ProviderError> {
        self.world.pause(self.life, "before a question").await;
        let now = self.world.now();
        let state = self.world.lock();
        let instance = state.cloud.all.get(instance);
        Ok(instance.is_some_and(|each| {
            now.duration_since(each.born).unsigned_abs() < Duration::from_secs(120)
        }))
    }
}

/// Says so if there are more instances than there may be.
fn over_its_maximum(cloud: &Instances, pool: &PoolName) -> Option<String> {
    let all = cloud.alive().count();
    let of_pool = cloud.alive().filter(|(_, each)| each.pool == *pool).count();
    let (_, _, most) = POOLS.iter().find(|(name, ..)| *name == pool.as_str())?;
    if of_pool > *most as usize {
        return Some(format!(
            "{pool} has {of_pool} instances, and may have {most}"
        ));
    }
    (all > ACCOUNT_MAX as usize)
        .then(|| format!("the account has {all} instances, and may have {ACCOUNT_MAX}"))
}
