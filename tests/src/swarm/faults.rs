//! What befalls two coordinators between two kills.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::figures::short;
use super::pair::Pair;
use super::site::Grounds;

/// How long a fault lasts.
const LASTS: Duration = Duration::from_secs(3);
/// Time between two looks whether PostgreSQL runs.
const REVIVED: Duration = Duration::from_secs(1);

/// One thing that befalls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The leader is cut off from PostgreSQL until another leads.
    NoDatabase,
    /// All agents are cut off from the leader for a while.
    NoAgents,
    /// PostgreSQL loses power, and comes back.
    DatabaseRestarts,
    /// The disk of PostgreSQL is full for a while.
    DiskFull,
}

impl Fault {
    /// All of them, in the order of a siege.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::NoDatabase,
        Self::NoAgents,
        Self::DatabaseRestarts,
        Self::DiskFull,
    ];

    /// Has it happen, and waits until somebody serves again; says what came of it.
    pub(super) async fn befall(
        self,
        grounds: &Grounds<'_>,
        pair: &Pair<'_>,
    ) -> anyhow::Result<String> {
        let leader = pair.leader().await?;
        let began = Instant::now();
        match self {
            Self::None => return Ok("nothing else".to_owned()),
            Self::NoDatabase => {
                grounds.database_cable(leader, false)?;
                let other = pair.serves(Some(leader)).await;
                let took = began.elapsed();
                grounds.database_cable(leader, true)?;
                other.context("the leader is cut off from PostgreSQL")?;
                return Ok(format!(
                    "leader cut off from PostgreSQL: another serves after {}",
                    short(took)
                ));
            }
            Self::NoAgents => {
                grounds.agents_cable(false)?;
                sleep(LASTS).await;
                grounds.agents_cable(true)?;
                return Ok(format!("agents cut off for {LASTS:?}"));
            }
            Self::DatabaseRestarts => {
                tokio::task::block_in_place(|| {
                    grounds.stop_database();
                    grounds.start_database()
                })?;
            }
            Self::DiskFull => {
                tokio::task::block_in_place(|| grounds.fill_disk())?;
                sleep(LASTS).await;
                tokio::task::block_in_place(|| grounds.free_disk())?;
            }
        }
        let ready = began.elapsed();
        // A server whose disk was full may answer yet while it ends.
        let revived = async {
            loop {
                drop(tokio::task::block_in_place(|| grounds.start_database()));
                sleep(REVIVED).await;
            }
        };
        let served = tokio::select! {
            served = pair.serves(None) => served,
            never = revived => never,
        };
        served.with_context(|| format!("{self:?}"))?;
        Ok(format!(
            "{self:?}: PostgreSQL is back after {}, and served after {}",
            short(ready),
            short(began.elapsed())
        ))
    }
}
