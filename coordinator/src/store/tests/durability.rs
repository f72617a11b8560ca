//! Crashes, full disks, other processes, other versions.

use std::os::unix::fs::PermissionsExt as _;

use futures::future::join_all;
use muster_core::{JobId, PoolState};
use rstest::rstest;

use crate::store::change::Change;
use crate::store::database::{Connection, Durable, built, statement};
use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    Cluster, delivery, entry, home, in_schema, job, launch, runner,
};
use crate::store::{Accepted, Batch, Store, StoreError, TimelineQuery};

#[rstest]
#[tokio::test]
async fn what_was_answered_outlives_a_crash(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    home.store.accept_delivery(delivery("a")).await.unwrap();
    let batch = Batch {
        jobs: vec![job(1, muster_core::JobStatus::Queued, 1)],
        runners: vec![runner("l1", 1)],
        timeline: vec![entry(0, "queued")],
        effects: vec![launch("l1")],
        ..Batch::default()
    };
    let entries = home.store.commit(batch.clone()).await.unwrap();
    home.store.set_note("cursor", "42").await.unwrap();

    let home = home.crash().await;
    assert_eq!(home.store.pending_deliveries(9).await.unwrap().len(), 1);
    let stored = home.store.load().await.unwrap();
    assert_eq!(stored.jobs, batch.jobs);
    assert_eq!(stored.runners, batch.runners);
    assert_eq!(home.store.pending_effects().await.unwrap(), batch.effects);
    let query = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    assert_eq!(home.store.timeline(query).await.unwrap(), entries);
    let note = home.store.note("cursor").await.unwrap();
    assert_eq!(note.as_deref(), Some("42"));
}

/// Asks the connection that writes for a setting of it.
struct Setting(&'static str);

impl Change for Setting {
    type Output = String;

    const OF_LEADER: bool = false;

    async fn apply(&self, db: &mut Connection) -> Result<String, StoreError> {
        if db.is_postgres() {
            let (value,): (String,) = statement("SELECT current_setting($1)")
                .bind(self.0)
                .one(db)
                .await?;
            return Ok(value);
        }
        let text = format!("SELECT CAST(\"{0}\" AS TEXT) FROM pragma_{0}", self.0);
        let (value,): (String,) = built(text).one(db).await?;
        Ok(value)
    }
}

async fn setting(store: &Store, name: &'static str) -> String {
    store.inner.writer.submit(Setting(name)).await.unwrap()
}

#[tokio::test]
async fn commits_reach_the_disk_before_they_are_answered() {
    let home = home(Sqlite).await;
    assert_eq!(setting(&home.store, "journal_mode").await, "wal");
    // FULL.
    assert_eq!(setting(&home.store, "synchronous").await, "2");

    // Whatever the server does by itself.
    let cluster = Cluster::own(&["synchronous_commit=off"]);
    let store = Store::connect(&in_schema(&cluster).await).await.unwrap();
    assert_eq!(setting(&store, "synchronous_commit").await, "on");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_nothing_is_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("muster.db");
    let mut limited = Durable::at(&path);
    limited.options = limited.options.pragma("max_page_count", "60");
    let store = Store::open_file(limited).await.unwrap();

    let mut large = delivery("large");
    large.body = vec![b'x'; 1 << 20];
    let mut batch = Batch {
        jobs: vec![job(1, muster_core::JobStatus::Queued, 1)],
        effects: vec![launch("l1")],
        timeline: vec![entry(0, "small"), entry(0, "large")],
        ..Batch::default()
    };
    batch.timeline[1].detail = "x".repeat(1 << 20);

    // Small ones that come together with those that don't fit are stored.
    let (full, small, unfit) = tokio::join!(
        store.accept_delivery(large),
        store.accept_delivery(delivery("small")),
        store.commit(batch),
    );
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    assert!(matches!(unfit, Err(StoreError::Full(_))), "{unfit:?}");
    assert_eq!(small.unwrap(), Accepted::New);

    let everything = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    assert_eq!(store.timeline(everything).await.unwrap(), []);
    assert_eq!(store.load().await.unwrap().jobs, []);
    assert_eq!(store.pending_effects().await.unwrap(), []);
    assert_eq!(store.pending_deliveries(9).await.unwrap().len(), 1);

    // It goes on after the failure, and what it answers is durable.
    let accepted = store.accept_delivery(delivery("later")).await.unwrap();
    assert_eq!(accepted, Accepted::New);
    drop(store);
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.pending_deliveries(9).await.unwrap().len(), 2);
}

#[rstest]
#[tokio::test]
async fn a_closed_store_has_written_what_it_was_given_and_refuses_more(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let sends = join_all((0..300).map(|n| home.store.accept_delivery(delivery(&n.to_string()))));
    let (answers, ()) = tokio::join!(sends, home.store.close());
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(Accepted::New) | Err(StoreError::Closed)))
    );

    let refused = home.store.accept_delivery(delivery("x")).await;
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert!(home.store.load().await.is_err());
    home.store.close().await;

    let home = home.crash().await;
    let waiting = home.store.pending_deliveries(999).await.unwrap();
    assert_eq!(waiting.len(), stored);
}

#[tokio::test]
async fn a_second_coordinator_is_kept_out() {
    let home = home(Sqlite).await;
    let refused = Store::open(home.path()).await;
    assert!(matches!(refused, Err(StoreError::InUse(_))));
    home.crash().await;
}

#[tokio::test]
async fn to_delete_the_lock_file_lets_nobody_in() {
    let home = home(Sqlite).await;
    let lock = home.path().with_file_name("muster.db.lock");
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(home.path(), &link).unwrap();
    for path in [home.path(), &link] {
        std::fs::remove_file(&lock).unwrap();
        let refused = Store::open(path).await.unwrap_err();
        assert!(matches!(refused, StoreError::InUse(_)), "{refused}");
        let told = refused.to_string();
        assert!(
            told.contains("To delete the lock file helps nobody"),
            "{told}"
        );
        std::fs::File::create(&lock).unwrap();
    }
    home.store.accept_delivery(delivery("a")).await.unwrap();
    let home = home.crash().await;
    assert_eq!(home.store.pending_deliveries(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("muster.db");
    std::fs::write(
        &path,
        "this is not SQLite, whatever its name says".repeat(50),
    )
    .unwrap();
    assert!(matches!(
        Store::open(&path).await,
        Err(StoreError::Database(_) | StoreError::Schema(_))
    ));
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let home = home(Sqlite).await;
    home.store.accept_delivery(delivery("a")).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{}{suffix}", home.path().display());
        let mode = std::fs::metadata(&name).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[rstest]
#[tokio::test]
async fn a_record_of_a_newer_version_is_left_aside_and_keeps_nothing_else_from_being_served(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let batch = Batch {
        jobs: [77, 78]
            .map(|id| job(id, muster_core::JobStatus::Queued, 1))
            .into(),
        runners: vec![runner("l1", 1), runner("l2", 1)],
        pools: vec![("linux".into(), PoolState::default())],
        effects: vec![launch("l1"), launch("l2")],
        ..Batch::default()
    };
    home.store.commit(batch).await.unwrap();
    let mut db = home.raw().await;
    for newer in [
        "UPDATE jobs SET record = '{}' WHERE id = 77",
        "UPDATE runners SET record = replace(record, '\"state\":\"', '\"state\":\"un') WHERE launch = 'l1'",
        "UPDATE outbox SET effect = '{\"effect\":\"hibernate\"}' WHERE key = 'launch/l1'",
        "UPDATE pools SET state = '{\"paused\":3}'",
    ] {
        db.command(newer).await.unwrap();
    }
    let stored = home.store.load().await.unwrap();
    let jobs: Vec<i64> = stored.jobs.iter().map(|job| job.id().0).collect();
    let runners: Vec<&str> = stored.runners.iter().map(|it| it.launch.as_str()).collect();
    assert_eq!((jobs, runners), (vec![78], vec!["l2"]));
    let paused = stored.pools[&"linux".into()].paused.clone().unwrap();
    assert!(
        paused.starts_with("its stored state can't be read: stored pool linux can't be read: "),
        "{paused}"
    );
    assert_eq!(home.store.pending_effects().await.unwrap(), [launch("l2")]);
    // What is asked for by its name is not passed over in silence.
    let error = home.store.job(JobId(77)).await.unwrap_err().to_string();
    assert!(
        error.starts_with("stored job 77 can't be read: "),
        "{error}"
    );
}
