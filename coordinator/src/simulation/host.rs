//! A host: an agent that keeps to the protocol, and a runner.

mod agent;
mod thief;

use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Event, InstanceId, Interruption, LaunchId, PoolName};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::agent::Agent;
use super::world::World;

/// How long an agent waits for an answer before it tries again.
const PATIENCE: Duration = Duration::from_secs(20);

/// News that may wait for a host.
const NEWS: usize = 64;

/// What a host hears of GitHub and of its instance.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// Its runner was given a job.
    Job(i64),
    /// That job is cancelled.
    Cancelled(i64),
    /// Its registration was deleted.
    Deregistered,
    /// The instance will be taken back.
    Interrupted(Interruption, Option<Timestamp>),
    /// Its network is cut off from the coordinator for so long.
    CutOff(Duration),
    /// It hangs: nothing on it goes on, and its connections stay open.
    Hangs,
}

/// A host, as the world knows it.
#[derive(Debug)]
pub(super) struct Host {
    news: mpsc::Sender<News>,
    /// Since when its agent holds a stream, if it does.
    pub(super) connected_since: Option<Instant>,
    /// When it was first told that its instance will be taken, or may be.
    pub(super) noticed_at: Option<Instant>,
    /// It will be.
    pub(super) ends_soon: bool,
    /// Its job has its certificate.
    pub(super) robbed: bool,
}

/// Tells a host something, if it is there.
pub(super) fn tell(world: &World, instance: &InstanceId, news: News) {
    let mut state = world.lock();
    if let Some(host) = state.judge.hosts.get_mut(instance) {
        if let News::Interrupted(_, deadline) = news {
            host.noticed_at.get_or_insert_with(Instant::now);
            host.ends_soon |= deadline.is_some();
        }
        // It may be off.
        let _ = host.news.try_send(news);
    }
}

/// Starts a host with its instance; it ends with it.
pub(super) fn boot(
    world: &World,
    instance: &InstanceId,
    launch: &LaunchId,
    pool: &PoolName,
    power: CancellationToken,
) {
    let (tell, news) = mpsc::channel(NEWS);
    let host = Host {
        news: tell,
        connected_since: None,
        noticed_at: None,
        ends_soon: false,
        robbed: false,
    };
    world.lock().judge.hosts.insert(instance.clone(), host);
    let (world, instance, launch, pool) = (
        world.clone(),
        instance.clone(),
        launch.clone(),
        pool.clone(),
    );
    tokio::spawn(async move {
        let life = live(&world, &instance, &launch, &pool, news);
        tokio::select! {
            // Without power nothing is done any more, also not what was due at that moment.
            biased;
            () = power.cancelled() => {}
            () = life => {}
        }
        world.lock().judge.hosts.remove(&instance);
    });
}

async fn live(
    world: &World,
    instance: &InstanceId,
    launch: &LaunchId,
    pool: &PoolName,
    news: mpsc::Receiver<News>,
) {
    let dead = {
        let mut state = world.lock();
        let dead = state.plan.dead_on_arrival;
        state.chance(dead)
    };
    if dead {
        std::future::pending::<()>().await;
    }
    world.rest(4_000, 25_000).await;
    enrol(world, instance, launch).await;
    let agent = Agent::new(
        world.clone(),
        instance.clone(),
        launch.clone(),
        pool.clone(),
        news,
    );
    agent.run().await;
}

/// Proves who it is until it is let in. The proof itself is not simulated: what counts here is that it may be
/// asked for again and again, of one process and the next.
async fn enrol(world: &World, instance: &InstanceId, launch: &LaunchId) {
    loop {
        let engine = world
            .lock()
            .process
            .as_ref()
            .map(|process| process.engine.clone());
        if let Some(engine) = engine {
            world.rest(20, 500).await;
            let event = Event::Enrolled {
                launch: launch.clone(),
                instance: instance.clone(),
            };
            if let Ok(Ok(())) = timeout(PATIENCE, engine.submit(event)).await {
                return;
            }
        }
        world.rest(500, 5_000).await;
    }
}

/// When something is due.
type Due = Option<Instant>;

/// Waits until then, or for ever.
async fn due(at: Due) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
