//! Copies that don't come to their end.

use std::path::Path;
use std::process::Command;

use sqlx::{Connection as _, Executor as _};

use super::backup::{backup as whole_backup, restore as whole_restore};
use crate::store::database::sqlite;
use crate::store::fixtures::at;
use crate::store::{BackupError, Stop, Store, backup, restore};

const SIGTERM: u8 = 15;

/// A database that isn't copied within one look whether to stop.
async fn large_store(database: &Path) {
    let store = Store::open(database).await.unwrap();
    store.close().await;
    let options = sqlite::options(database);
    let mut db = sqlx::ConnectOptions::connect(&options).await.unwrap();
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO notes (name, value) SELECT 'n' || i, hex(randomblob(64)) FROM n",
    )
    .await
    .unwrap();
    db.close().await.unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_that_is_stopped_leaves_nothing_and_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (database, copy) = (path("muster.db"), path("copy.db"));
    large_store(&database).await;
    whole_backup(&database, &copy, false).await.unwrap();
    let before = (names(directory.path()), std::fs::read(&database).unwrap());
    let stop = Stop::default();
    stop.ask(SIGTERM);

    let stopped = [
        backup(&database, &path("new.db"), false, &stop).await,
        backup(&database, &copy, true, &stop).await,
        restore(&copy, &database, at(0), &stop).await.map(drop),
    ];
    for outcome in stopped {
        assert!(
            matches!(outcome, Err(BackupError::Interrupted(SIGTERM))),
            "{outcome:?}"
        );
    }
    let after = (names(directory.path()), std::fs::read(&database).unwrap());
    assert!(before == after, "{:?}", after.0);
    whole_restore(&copy, &database, at(0)).await.unwrap();
}

#[tokio::test]
async fn left_overs_of_processes_that_are_no_more_go_with_the_next_copy() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let database = path("muster.db");
    large_store(&database).await;
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let (gone, lives) = (ended.id(), std::os::unix::process::parent_id());
    let me = std::process::id();
    let go = [
        format!("copy.db.{gone}.new"),
        format!("copy.db.{gone}.new-journal"),
        format!("copy.db.{gone}.new-wal"),
        // As in a container, where each copy is made by process 1.
        format!("copy.db.{me}.new"),
        format!("copy.db.{me}.new-journal"),
    ];
    let stay = [
        format!("copy.db.{lives}.new"),
        format!("copy.db.{lives}.new-journal"),
        format!("copy.db.-{gone}.new"),
        format!("copy.db.+{gone}.new"),
        format!("copy.db.{gone}.newer"),
        format!("copy.db.{gone}"),
        format!("other.db.{gone}.new"),
        "copy.db.new".to_owned(),
    ];
    for name in go.iter().chain(&stay) {
        std::fs::write(path(name), "half a copy").unwrap();
    }
    whole_backup(&database, &path("copy.db"), false)
        .await
        .unwrap();
    let mut expected = stay.to_vec();
    expected.extend(["copy.db", "muster.db", "muster.db.lock"].map(str::to_owned));
    expected.sort();
    assert_eq!(names(directory.path()), expected);
}
