//! What an outage of the store is to hosts that nobody could hear in it.

use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Event, Instance, LaunchId, Marks, Runner, Work};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::life;
use super::plan::Plan;
use super::run::ACCOUNT;
use super::world::{BEGIN, World};
use crate::engine::Engine;
use crate::store::fixtures::{job, runner};
use crate::{chance, clock};

/// A host in the middle of a job, as it is stored.
fn busy(launch: &LaunchId) -> Runner {
    let runner = runner(launch.as_str(), 1);
    Runner {
        account: ACCOUNT.into(),
        instance: Instance::Exists {
            id: "i-00000001".into(),
        },
        work: Work::Busy,
        drain: None,
        trialed: None,
        marks: Marks {
            created_at: clock::now(),
            ..runner.marks.clone()
        },
        ..runner
    }
}

/// It was silent when the outage began, as after any start, and knocks all the time.
#[tokio::test(start_paused = true)]
async fn a_host_that_nobody_could_hear_has_all_its_time_after_an_outage() {
    chance::seeded::start(1);
    clock::simulated::start(Timestamp::from_second(BEGIN).unwrap());
    let world = World::new(1, Plan::long_outages());
    world.set_life(1);
    let launch = LaunchId::from("l1");
    let stored = busy(&launch);
    world
        .lock()
        .disk
        .tables
        .runners
        .insert(launch.clone(), stored);
    let (engine, runnable) = Engine::new(life::parts(&world, 1)).await.unwrap();
    let running = tokio::spawn(runnable.run(CancellationToken::new()));
    let is_over = || {
        let launch = launch.clone();
        engine.query(move |fleet| fleet.runner(&launch).is_some_and(Runner::is_over))
    };
    assert!(!is_over().await.unwrap());
    let outage = Duration::from_secs(20 * 60);
    world.lock().outage.store = Some(Instant::now() + outage);
    let queued = job(1, muster_core::JobStatus::Queued, 1).report;
    engine.submit(Event::Job(Box::new(queued))).await.unwrap();
    // It took until the end of the outage.
    sleep(Duration::from_secs(10 * 60)).await;
    assert!(!is_over().await.unwrap(), "it has eleven minutes");
    sleep(Duration::from_secs(2 * 60)).await;
    assert!(is_over().await.unwrap());
    running.abort();
}
