//! Databases that go away, come back, say nothing, or are full.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use muster_core::{JobId, JobStatus, LaunchId};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::store::fixtures::{
    Cluster, Mode, Wire, delivery, entry, in_schema, job, launch, lead_at_once, runner,
};
use crate::store::{Accepted, Batch, Limits, PostgresSettings, Store, StoreError, TimelineQuery};

const DEADLINE: Duration = Duration::from_secs(60);

fn hasty(settings: PostgresSettings) -> PostgresSettings {
    let limits = Limits {
        connect: Duration::from_secs(2),
        statement: Duration::from_secs(1),
        ..Limits::default()
    };
    PostgresSettings { limits, ..settings }
}

/// Stores a delivery once that goes.
async fn insist(store: &Store, guid: &str) -> Accepted {
    let mut writable = store.writable();
    let trying = async {
        loop {
            match store.accept_delivery(delivery(guid)).await {
                Ok(accepted) => return accepted,
                Err(error) => assert!(error.passes(), "{error}"),
            }
            writable.wait_for(|writable| *writable).await.unwrap();
        }
    };
    timeout(DEADLINE, trying).await.unwrap()
}

async fn guids(store: &Store) -> Vec<String> {
    let waiting = store.pending_deliveries(99_999).await.unwrap();
    waiting.into_iter().map(|one| one.guid).collect()
}

async fn becomes_writable(store: &Store, wanted: bool) {
    let mut writable = store.writable();
    let waited = timeout(DEADLINE, writable.wait_for(|now| *now == wanted));
    waited.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_loses_nothing_that_was_answered() {
    let cluster = Cluster::own(&[]);
    let settings = hasty(in_schema(&cluster).await);
    let store = Store::connect(&settings).await.unwrap();
    let mut answered = BTreeSet::new();
    let mut number = 0;
    for _ in 0..3 {
        let (tell, busy) = oneshot::channel();
        let mut tell = Some(tell);
        let from = number;
        let until_it_dies = async {
            loop {
                if number > from + 200
                    && let Some(tell) = tell.take()
                {
                    tell.send(()).unwrap();
                }
                let guids: Vec<_> = (number..number + 16).map(|n| n.to_string()).collect();
                number += 16;
                let sends = guids
                    .iter()
                    .map(|guid| store.accept_delivery(delivery(guid)));
                let answers = futures::future::join_all(sends).await;
                let mut failed = false;
                for (guid, answer) in guids.into_iter().zip(answers) {
                    match answer {
                        Ok(_) => drop(answered.insert(guid)),
                        Err(error) => {
                            assert!(error.passes(), "{error}");
                            failed = true;
                        }
                    }
                }
                if failed && tell.is_none() {
                    return;
                }
                // A disk that is busy may take too long, too.
                becomes_writable(&store, true).await;
            }
        };
        let directory = cluster.directory().to_owned();
        let kill = async {
            busy.await.unwrap();
            let stop = tokio::task::spawn_blocking(move || Cluster::stop_in(&directory));
            stop.await.unwrap();
        };
        let (dead, ()) = tokio::join!(timeout(DEADLINE, until_it_dies), kill);
        dead.unwrap();
        // Nobody looks for it but with a change.
        assert!(store.accept_delivery(delivery("dead")).await.is_err());
        becomes_writable(&store, false).await;
        cluster.start(&[]);
        // It is found out without anybody asking.
        becomes_writable(&store, true).await;
    }
    let stored: BTreeSet<_> = guids(&store).await.into_iter().collect();
    assert!(answered.len() > 600, "{}", answered.len());
    assert_eq!(answered.difference(&stored).count(), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let cluster = Cluster::shared();
    let settings = hasty(in_schema(cluster).await);
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let _leads = lead_at_once(&store).await;
    store.accept_delivery(delivery("before")).await.unwrap();

    wire.set(Mode::Silent);
    for _ in 0..2 {
        let began = Instant::now();
        let error = store.accept_delivery(delivery("during")).await.unwrap_err();
        assert!(error.passes(), "{error}");
        let error = store.pending_deliveries(9).await.unwrap_err();
        assert!(error.passes(), "{error}");
        // Two seconds for each statement and connection, and some for a busy machine.
        assert!(began.elapsed() < Duration::from_secs(15));
    }
    assert!(!*store.writable().borrow());

    wire.set(Mode::Whole);
    insist(&store, "after").await;
    becomes_writable(&store, true).await;
    let stored = guids(&store).await;
    assert!(stored.contains(&"before".to_owned()) && stored.contains(&"after".to_owned()));
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_told_so_and_stored_once() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let _leads = lead_at_once(&store).await;

    wire.set(Mode::SwallowsCommit);
    let unknown = store.accept_delivery(delivery("a")).await;
    assert!(
        matches!(unknown, Err(StoreError::Unknown(_))),
        "{unknown:?}"
    );
    wire.set(Mode::Whole);
    assert_eq!(insist(&store, "a").await, Accepted::Duplicate);

    let batch = Batch {
        timeline: vec![entry(0, "once"), entry(1, "only")],
        effects: vec![launch("l1")],
        ..Batch::default()
    };
    wire.set(Mode::SwallowsCommit);
    let unknown = store.commit(batch.clone()).await;
    assert!(
        matches!(unknown, Err(StoreError::Unknown(_))),
        "{unknown:?}"
    );
    wire.set(Mode::Whole);
    becomes_writable(&store, true).await;
    let entries = store.commit(batch).await.unwrap();
    let all = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    assert_eq!(store.timeline(all).await.unwrap(), entries);
    assert_eq!(entries.len(), 2);
    assert_eq!(store.pending_effects().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_of_thousands_takes_few_ways_to_the_server() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let _leads = lead_at_once(&store).await;
    let names: Vec<_> = (0..1_000).map(|n| format!("l{n}")).collect();
    let batch = Batch {
        jobs: (0..1_000)
            .map(|n| job(n, JobStatus::Completed, 1))
            .collect(),
        runners: names.iter().map(|name| runner(name, 1)).collect(),
        timeline: names.iter().map(|name| entry(0, name)).collect(),
        effects: names.iter().map(|name| launch(name)).collect(),
        forgotten_jobs: (0..1_000).map(JobId).collect(),
        forgotten_runners: names.iter().map(LaunchId::new).collect(),
        finished_effects: names.clone(),
        processed_deliveries: names.clone(),
        ..Batch::default()
    };
    let before = wire.carried();
    store.commit(batch).await.unwrap();
    // Some megabytes, in pieces of 64 KiB at most; each statement would be one of 8,000.
    let pieces = wire.carried() - before;
    assert!(pieces < 800, "{pieces}");
}

#[tokio::test]
async fn a_server_that_is_not_there_at_the_start_is_an_error_that_passes() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!(
        "postgres://postgres@localhost/postgres?host={}",
        directory.path().display()
    );
    let error = Store::connect(&PostgresSettings::new(url.into()))
        .await
        .unwrap_err();
    assert!(error.passes(), "{error}");
}

/// A file system of two megabytes, taken off when dropped.
struct Small(PathBuf);

impl Small {
    fn over(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=2m", "none"])
            .arg(&dir);
        assert!(
            mount.status().unwrap().success(),
            "needs root to mount a tmpfs"
        );
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_until_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let small = Small::over(directory.path().join("small"));
    let path = small.0.join("muster.db");
    let store = Store::open(&path).await.unwrap();
    let fill = small.0.join("fill");
    let mut answered = vec!["before".to_owned()];
    store.accept_delivery(delivery("before")).await.unwrap();

    // Somebody else fills the disk, to the last byte.
    drop(std::fs::write(&fill, vec![b'x'; 4 << 20]));
    let mut large = delivery("large");
    large.body = vec![b'x'; 256 << 10];
    let full = store.accept_delivery(large.clone()).await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    // What little room there is in the files may still take small ones.
    for number in 0..200 {
        match store.accept_delivery(delivery(&number.to_string())).await {
            Ok(_) => answered.push(number.to_string()),
            Err(error) => assert!(error.passes(), "{error}"),
        }
    }
    let batch = Batch {
        timeline: (0..999).map(|n| entry(n, "much")).collect(),
        effects: vec![launch("l1")],
        ..Batch::default()
    };
    let full = store.commit(batch.clone()).await.unwrap_err();
    assert!(full.passes(), "{full}");
    assert!(!*store.writable().borrow());
    assert_eq!(
        store.pending_effects().await.unwrap(),
        [],
        "it can still be read"
    );

    std::fs::remove_file(&fill).unwrap();
    becomes_writable(&store, true).await;
    store.accept_delivery(large).await.unwrap();
    answered.push("large".to_owned());
    store.commit(batch).await.unwrap();
    assert_eq!(guids(&store).await, answered);
    drop(store);
    let store = Store::open(&path).await.unwrap();
    assert_eq!(guids(&store).await, answered);
    assert_eq!(store.pending_effects().await.unwrap().len(), 1);
    store.close().await;
}
