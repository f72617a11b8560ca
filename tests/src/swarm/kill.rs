//! The worst moments: all agents drop their connections at once, and `kill -9` of the coordinator.

use std::time::Duration;

use anyhow::bail;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::board::Shared;
use super::figures::{Times, short};
use super::ground::Ground;
use super::picture::Picture;
use super::plan::up_to;
use super::verdict;
use crate::world::{Operator, wait_for};

/// Time between two looks at what the coordinator says.
const LOOK: Duration = Duration::from_millis(50);
/// Listings of instances after which it would be known of any that is taken for a stray or for lost.
const LISTINGS: u64 = 3;
/// Instances in one page of a listing.
const PAGE: u64 = 1_000;
/// The longest list of what is wrong.
pub(super) const SHOWN: usize = 20;

/// How the agents came back.
pub(super) struct Back {
    /// From the moment to the agents' accepted streams.
    streams: Times,
    /// From the moment until the coordinator says what is so.
    pub(super) right: Duration,
    /// Streams that agents opened beyond the first each.
    again: usize,
}

impl Back {
    /// Waits until all agents are back since a moment, and until all is as it was before.
    async fn since(at: Instant, ground: &Ground, before: &Picture) -> anyhow::Result<Self> {
        let streams = wait_for("all agents are back", ground.plan.patience, async || {
            Ok(opened_since(ground, at))
        });
        let streams = Times::of(streams.await?)?;
        let operator = ground.world.operator("swarm").await?;
        settle(ground, &operator, Some(before)).await?;
        let right = at.elapsed();
        let hosts = ground.board.all().into_values();
        let opened = hosts.map(|host| {
            let host = host.lock();
            let since = host.opened.iter().filter(|opened| **opened > at);
            since.count().saturating_sub(1)
        });
        Ok(Self {
            streams,
            right,
            again: opened.sum(),
        })
    }
}

impl std::fmt::Display for Back {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "streams accepted: 50 % after {}, 99 % after {}, all after {}; state right after {}; \
             {} streams opened more than once each",
            short(self.streams.at(0.5)),
            short(self.streams.at(0.99)),
            short(self.streams.at(1.0)),
            short(self.right),
            self.again
        )
    }
}

/// When each agent's first stream since a moment was accepted; `None` while one has none.
fn opened_since(ground: &Ground, at: Instant) -> Option<Vec<Duration>> {
    let hosts = ground.board.all().into_values();
    hosts
        .filter(|host| !host.lock().over)
        .map(|host| {
            let host = host.lock();
            let first = host.opened.iter().find(|opened| **opened > at)?;
            Some(*first - at)
        })
        .collect()
}

/// Waits until the coordinator says what is so, and, if there is a picture of before, what was.
pub(super) async fn settle(
    ground: &Ground,
    operator: &Operator,
    before: Option<&Picture>,
) -> anyhow::Result<Picture> {
    let until = Instant::now() + ground.plan.patience;
    loop {
        let lost = before.map_or(0, |before| lost(ground, before));
        if lost > 0 {
            bail!("{lost} runners were given up that should have gone on");
        }
        let picture = Picture::take(ground, operator).await?;
        let mut wrong = verdict::now(ground, &picture);
        if let Some(before) = before {
            wrong.extend(verdict::changed(before, &picture));
        }
        if wrong.is_empty() {
            return Ok(picture);
        }
        if Instant::now() >= until {
            let count = wrong.len();
            wrong.truncate(SHOWN);
            bail!("{count} things are wrong, such as:\n{}", wrong.join("\n"));
        }
        sleep(LOOK).await;
    }
}

/// How many runners of before have an agent that was drained or ended: no wait brings them back.
fn lost(ground: &Ground, before: &Picture) -> usize {
    let hosts = before.runners.iter().filter_map(|(instance, runner)| {
        let host = ground.board.get(instance)?;
        let host = host.lock();
        Some(host.over || (host.draining && !runner.draining))
    });
    hosts.filter(|lost| *lost).count()
}

/// Has all agents drop their connections at once.
pub(super) async fn storm(ground: &Ground) -> anyhow::Result<Back> {
    let operator = ground.world.operator("swarm").await?;
    let before = settle(ground, &operator, None).await?;
    let at = Instant::now();
    ground.orders.send_modify(|orders| orders.storms += 1);
    Back::since(at, ground, &before).await
}

/// What came of a kill.
pub(super) struct Killed {
    /// From the kill until the coordinator listens again.
    pub(super) listening: Duration,
    pub(super) back: Back,
    /// Events that were sent again.
    pub(super) resent: u64,
    /// What must not have happened, and did.
    pub(super) wrong: Vec<String>,
}

/// Kills the coordinator with `SIGKILL` while events of all agents are on their way, and starts it again.
pub(super) async fn kill(ground: &Ground, random: &mut StdRng) -> anyhow::Result<Killed> {
    let operator = ground.world.operator("swarm").await?;
    let before = settle(ground, &operator, None).await?;
    let (resent, calls) = (resent(ground), Calls::of(ground));
    ground.orders.send_modify(|orders| orders.warnings += 1);
    // The moment of the fault: somewhere in the time in which those events are taken.
    let spread = Duration::from_micros(100_000 + u64::from(ground.plan.agents) * 200);
    sleep(up_to(random, spread)).await;

    let at = Instant::now();
    ground.world.coordinator.kill_nine();
    ground.world.coordinator.start_again().await?;
    let listening = at.elapsed();
    let back = Back::since(at, ground, &before).await?;
    Ok(Killed {
        listening,
        back,
        resent: self::resent(ground) - resent,
        wrong: calls.stay(ground, &before).await?,
    })
}

fn resent(ground: &Ground) -> u64 {
    let hosts = ground.board.all().into_values();
    hosts.map(|host: Shared| host.lock().resent).sum()
}

/// What was asked of EC2 so far.
struct Calls {
    launches: u64,
    terminations: u64,
    listings: u64,
}

impl Calls {
    fn of(ground: &Ground) -> Self {
        Self {
            launches: ground.aws.served("CreateFleet"),
            terminations: ground.aws.served("TerminateInstances"),
            listings: ground.aws.served("DescribeInstances"),
        }
    }

    /// Waits until EC2 was listed some times more; gives what was launched or ended meanwhile, which should
    /// be nothing.
    async fn stay(&self, ground: &Ground, before: &Picture) -> anyhow::Result<Vec<String>> {
        let pages = LISTINGS * (u64::from(ground.plan.agents) / PAGE + 1);
        let until = Self::of(ground).listings + pages;
        let listed = || (ground.aws.served("DescribeInstances") >= until).then_some(());
        ground
            .aws
            .wait_for("EC2 is listed", ground.plan.patience, listed)
            .await?;
        let now = Self::of(ground);
        let mut wrong = Vec::new();
        if now.launches != self.launches {
            let more = now.launches - self.launches;
            wrong.push(format!("{more} calls launched instances"));
        }
        if now.terminations != self.terminations {
            let more = now.terminations - self.terminations;
            wrong.push(format!("{more} calls terminated instances"));
        }
        let operator = ground.world.operator("swarm").await?;
        let after = Picture::take(ground, &operator).await?;
        wrong.extend(verdict::changed(before, &after));
        Ok(wrong)
    }
}
