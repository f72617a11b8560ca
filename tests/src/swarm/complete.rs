//! A swarm that is whole: every pool has the runners that it wants.

use anyhow::Context as _;
use muster_proto::v1::RunnerPhase;

use super::ground::Ground;
use super::kill::settle;
use crate::world::wait_for;

/// Waits until all pools have the runners that they want, and all is right.
pub(super) async fn complete(ground: &Ground, busy: usize) -> anyhow::Result<()> {
    let agents = usize::try_from(ground.plan.agents)?;
    let reached = wait_for("all runners wait", ground.plan.patience, async || {
        let count = |phase| {
            ground
                .board
                .count(|host| host.connected && host.phase == phase && !host.draining)
        };
        let all = count(RunnerPhase::Listening) == agents
            && count(RunnerPhase::Running) == busy
            && ground.board.count(|_| true) == agents + busy;
        Ok(all.then_some(()))
    });
    reached.await.with_context(|| {
        let phases: Vec<_> = [
            RunnerPhase::Unassigned,
            RunnerPhase::Starting,
            RunnerPhase::Connected,
            RunnerPhase::Listening,
            RunnerPhase::Running,
            RunnerPhase::Finished,
        ]
        .into_iter()
        .map(|phase| {
            let count = ground.board.count(|host| host.phase == phase);
            format!("{} {count}", phase.as_str_name())
        })
        .collect();
        format!("agents by phase: {}", phases.join(", "))
    })?;
    let operator = ground.world.operator("swarm").await?;
    settle(ground, &operator, None).await?;
    Ok(())
}
