//! What is kept of agents in memory ends with their runners.

use std::time::Duration;

use muster_core::{Instance, LaunchId, Marks, Registration, Runner};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, parts};
use crate::clock;
use crate::engine::Engine;
use crate::store::fixtures::runner;
use crate::store::{Batch, Store};

#[tokio::test]
async fn an_agent_is_forgotten_with_its_runner() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("muster.db"))
        .await
        .unwrap();
    let gone = runner("l1", 3);
    let yesterday = clock::now().checked_sub(Duration::from_secs(24 * 3_600));
    let gone = Runner {
        instance: Instance::Gone { id: None },
        registration: Registration::Gone,
        marks: Marks {
            gone_at: yesterday.ok(),
            ..gone.marks.clone()
        },
        ..gone
    };
    let batch = Batch {
        runners: vec![gone],
        ..Batch::default()
    };
    store.commit(batch).await.unwrap();
    let parts = parts(&store, directory.path());
    let presence = parts.presence.clone();
    let launch = LaunchId::from("l1");
    let (_connection, _outbound) = presence.connect(&launch);
    assert!(presence.get(&launch).is_some());
    let (_engine, runnable) = Engine::new(parts).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    let forgotten = async {
        while presence.get(&launch).is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, forgotten).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
}
