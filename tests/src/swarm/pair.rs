//! Two coordinators on one PostgreSQL, as a service keeps them: what has ended is started again.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout};

use super::ground::Ground;
use crate::world::{Coordinator, Operator};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// From an end to the next start: an orchestrator is not faster.
const RESTART: Duration = Duration::from_secs(1);
/// How long one call may take: on a busy machine a turn of the engine takes long, and an answer waits for it.
const CALL: Duration = Duration::from_secs(10);

/// Both of them.
pub(super) struct Pair<'a> {
    ground: &'a Ground,
    second: Coordinator,
}

impl<'a> Pair<'a> {
    pub(super) fn new(ground: &'a Ground, second: Coordinator) -> Self {
        Self { ground, second }
    }

    /// The one of this number, 1 or 2.
    pub(super) fn get(&self, number: u8) -> &Coordinator {
        match number {
            1 => &self.ground.world.coordinator,
            _ => &self.second,
        }
    }

    /// Starts them again whenever they end, for as long as this is polled.
    pub(super) async fn keep(&self) -> anyhow::Result<()> {
        tokio::try_join!(self.keep_one(1), self.keep_one(2)).map(|(never, _)| match never {})
    }

    async fn keep_one(&self, number: u8) -> anyhow::Result<Infallible> {
        loop {
            if self.get(number).has_ended() {
                sleep(RESTART).await;
                self.get(number).start_slowly().await?;
            }
            sleep(LOOK * 10).await;
        }
    }

    /// The number of the one that leads, once one does.
    pub(super) async fn leader(&self) -> anyhow::Result<u8> {
        let until = Instant::now() + self.ground.plan.patience;
        loop {
            for number in [1, 2] {
                if self.get(number).is_up_now() {
                    return Ok(number);
                }
            }
            if Instant::now() >= until {
                let logs = [1, 2].map(|number| self.get(number).log_tail());
                bail!("nobody leads; the logs end with\n{}", logs.join("\n--\n"));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until a coordinator other than this one, if one is given, answers an operator's call; gives its
    /// number.
    pub(super) async fn serves(&self, other_than: Option<u8>) -> anyhow::Result<u8> {
        let until = Instant::now() + self.ground.plan.patience;
        loop {
            let leads = |number: &u8| other_than != Some(*number) && self.get(*number).is_up_now();
            if let Some(number) = [1, 2].into_iter().find(leads)
                && matches!(timeout(CALL, self.call()).await, Ok(Ok(())))
            {
                return Ok(number);
            }
            if Instant::now() >= until {
                let logs = [1, 2].map(|number| self.get(number).log_tail());
                bail!("nobody serves; the logs end with\n{}", logs.join("\n--\n"));
            }
            sleep(LOOK).await;
        }
    }

    async fn call(&self) -> anyhow::Result<()> {
        let Operator { mut client } = self.ground.world.operator("swarm").await?;
        client
            .list_pools(muster_proto::v1::ListPoolsRequest::default())
            .await?;
        Ok(())
    }
}
