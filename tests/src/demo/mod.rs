//! The demo: a handful of jobs over two pools, with everything that usually happens to jobs.

mod report;
mod scene;

use std::time::Duration;

use anyhow::Context as _;
use muster_proto::v1::{ExplainJobRequest, WatchEventsRequest};

pub use self::report::{hold_commands, show_job};
pub use self::scene::{Scene, pools};
use crate::world::{Compute, Options, World};

/// How much faster than the real runner the stand-in is in the demo.
const SPEED: u32 = 5;
/// How long the whole may take; it is through in a fraction of that.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The world of the demo.
#[must_use]
pub fn options(compute: Compute) -> Options {
    Options {
        compute,
        pools: pools(),
        runner_speed: SPEED,
        ..Options::default()
    }
}

/// Shows what happens, as it happens, until the stream ends. What is known already is shown too.
///
/// # Errors
/// When the stream can't be opened.
pub async fn watch(world: &World, show: impl Fn(&str)) -> anyhow::Result<()> {
    let mut operator = world.operator("watcher").await?;
    let mut events = operator
        .client
        .watch_events(WatchEventsRequest::default())
        .await
        .context("watch events")?
        .into_inner();
    while let Some(event) = events.message().await? {
        if let Some(entry) = event.entry {
            show(&report::entry_line(&entry));
        }
    }
    Ok(())
}

/// Plays the scene to its end, but for the job that no pool takes.
///
/// # Errors
/// When a job doesn't end as it should in time.
pub async fn play(world: &World) -> anyhow::Result<Scene> {
    let scene = Scene::queue(&world.github);
    tokio::try_join!(
        scene.cancel_the_deployment(world),
        scene.interrupt_the_nightly(world),
        scene.wait_for_the_rest(world),
    )?;
    Ok(scene)
}

/// Asks the coordinator why the job that no pool takes waits; then its author gives up.
///
/// # Errors
/// When the coordinator doesn't say, or says something else.
pub async fn explain_and_give_up(world: &World, scene: &Scene) -> anyhow::Result<Vec<String>> {
    let mut operator = world.operator("explainer").await?;
    let id = i64::try_from(scene.train)?;
    let answer = operator
        .client
        .explain_job(ExplainJobRequest { id })
        .await
        .context("explain")?
        .into_inner();
    anyhow::ensure!(
        !answer.pools.is_empty() && answer.pools.iter().all(|verdict| !verdict.accepts),
        "some pool takes the job after all: {answer:#?}"
    );
    let mut lines = vec![answer.summary];
    lines.extend(
        answer
            .pools
            .iter()
            .map(|verdict| format!("{}: {}", verdict.pool, verdict.reason)),
    );
    lines.push(format!("next: {}", answer.next));
    world.github.cancel_job(scene.train);
    scene.wait_for_the_rejected(world).await?;
    Ok(lines)
}
