//! Copies, made under load and put back.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use muster_core::JobStatus;
use rstest::rstest;

use crate::store::fixtures::{at, delivery, entry, job, launch, runner};
use crate::store::{self, BackupError, Batch, Restored, Stop, Store, StoreError, TimelineQuery};

/// A backup that nobody stops.
pub(super) async fn backup(database: &Path, to: &Path, replace: bool) -> Result<(), BackupError> {
    store::backup(database, to, replace, &Stop::default()).await
}

/// A restore that nobody stops.
pub(super) async fn restore(
    from: &Path,
    database: &Path,
    now: jiff::Timestamp,
) -> Result<Restored, BackupError> {
    store::restore(from, database, now, &Stop::default()).await
}

pub(super) fn paths() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("muster.db");
    let copy = directory.path().join("copy.db");
    (directory, database, copy)
}

/// The time, where `at` is a place.
fn second(seconds: i64) -> jiff::Timestamp {
    at(seconds)
}

pub(super) async fn guids(store: &Store) -> Vec<String> {
    let waiting = store.pending_deliveries(999_999).await.unwrap();
    waiting.into_iter().map(|one| one.guid).collect()
}

/// A store with one of everything, closed.
pub(super) async fn some_store(database: &Path, guid: &str) {
    let store = Store::open(database).await.unwrap();
    store.accept_delivery(delivery(guid)).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_has_all_that_was_answered_before_it_began() {
    let (_directory, database, copy) = paths();
    let store = Store::open(&database).await.unwrap();
    let batch = Batch {
        jobs: vec![job(1, JobStatus::Queued, 1)],
        runners: vec![runner("l1", 1)],
        timeline: vec![entry(0, "queued")],
        effects: vec![launch("l1")],
        ..Batch::default()
    };
    store.commit(batch.clone()).await.unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, answered, done) = (store.clone(), Arc::clone(&answered), Arc::clone(&done));
        async move {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                let mut one = delivery(&number.to_string());
                one.body = vec![b'x'; 8 << 10];
                store.accept_delivery(one).await.unwrap();
                number += 1;
                answered.store(number, Ordering::SeqCst);
            }
        }
    });
    while answered.load(Ordering::SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    let before = answered.load(Ordering::SeqCst);
    backup(&database, &copy, false).await.unwrap();
    let during = answered.load(Ordering::SeqCst);
    // It didn't stop the writer.
    while answered.load(Ordering::SeqCst) < during + 10 {
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    store.close().await;
    drop(store);
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let restored = restore(&copy, &database, at(0)).await.unwrap();
    let store = Store::open(&database).await.unwrap();
    let there = guids(&store).await;
    assert!(there.len() as u64 >= before, "{} of {before}", there.len());
    let expected: Vec<_> = (0..there.len()).map(|n| n.to_string()).collect();
    assert_eq!(there, expected, "nothing is missing in between");
    // It goes on where it was.
    let stored = store.load().await.unwrap();
    assert_eq!((stored.jobs, stored.runners), (batch.jobs, batch.runners));
    assert_eq!(store.pending_effects().await.unwrap(), batch.effects);
    let all = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    assert_eq!(store.timeline(all).await.unwrap().len(), 1);
    store.accept_delivery(delivery("new")).await.unwrap();
    store.close().await;
    drop(store);

    let aside = Store::open(&restored.aside.unwrap()).await.unwrap();
    assert!(
        guids(&aside).await.len() as u64 >= during,
        "the old one is kept"
    );
    aside.close().await;
}

#[tokio::test]
async fn a_copy_replaces_nothing_unless_told_so() {
    let (directory, database, copy) = paths();
    some_store(&database, "a").await;
    std::fs::write(&copy, "precious").unwrap();
    let refused = backup(&database, &copy, false).await;
    assert!(
        matches!(refused, Err(BackupError::Exists(_))),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(&copy).unwrap(), b"precious");
    backup(&database, &copy, true).await.unwrap();
    let store = Store::open(&copy).await.unwrap();
    assert_eq!(guids(&store).await, ["a"]);
    store.close().await;

    let nothing = directory.path().join("nothing.db");
    let refused = backup(&nothing, &copy, true).await;
    assert!(matches!(refused, Err(BackupError::NoDatabase(_))));
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".new"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn a_copy_replaces_regular_files_only() {
    let (directory, database, copy) = paths();
    some_store(&database, "a").await;
    let at = |name: &str| directory.path().join(name);
    // Never a device: what this test is about would replace it.
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    std::fs::write(at("file"), "precious").unwrap();
    for (name, leads) in [
        ("to-pipe", "pipe"),
        ("to-file", "file"),
        ("to-none", "none"),
    ] {
        std::os::unix::fs::symlink(at(leads), at(name)).unwrap();
    }
    let kind = |name| std::fs::symlink_metadata(at(name)).unwrap().file_type();
    for name in ["pipe", "directory", "to-pipe", "to-file", "to-none"] {
        let was = kind(name);
        for force in [false, true] {
            let refused = backup(&database, &at(name), force).await;
            assert!(
                matches!(refused, Err(BackupError::NoFile(_))),
                "{name}: {refused:?}"
            );
            assert_eq!(kind(name), was, "{name}");
        }
    }
    assert_eq!(std::fs::read(at("file")).unwrap(), b"precious");
    assert!(!at("none").exists());

    backup(&database, &copy, false).await.unwrap();
    let refused = restore(&copy, &at("pipe"), second(0)).await;
    assert!(
        matches!(refused, Err(BackupError::NoFile(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_database_is_no_place_for_its_own_copy() {
    let (directory, database, copy) = paths();
    let store = Store::open(&database).await.unwrap();
    store.accept_delivery(delivery("a")).await.unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    std::os::unix::fs::symlink(&database, at("link.db")).unwrap();
    std::os::unix::fs::symlink(directory.path(), at("again")).unwrap();
    std::fs::hard_link(&database, at("hard.db")).unwrap();
    for name in [
        "muster.db",
        "muster.db-wal",
        "muster.db-shm",
        "muster.db-journal",
        "muster.db.lock",
        "sub/../muster.db",
        "again/muster.db",
        "again/muster.db-journal",
        "link.db",
        "hard.db",
    ] {
        for from in [database.clone(), at("link.db"), at("again/muster.db")] {
            let refused = backup(&from, &at(name), true).await;
            let refused_so = matches!(refused, Err(BackupError::Itself(_)));
            assert!(refused_so, "{name} of {from:?}: {refused:?}");
        }
    }
    // By where this process is.
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(database.strip_prefix("/").unwrap());
    let refused = backup(&database, &relative, true).await;
    assert!(
        matches!(refused, Err(BackupError::Itself(_))),
        "{refused:?}"
    );

    store.accept_delivery(delivery("b")).await.unwrap();
    backup(&database, &copy, true).await.unwrap();
    store.close().await;
    drop(store);
    let store = Store::open(&database).await.unwrap();
    assert_eq!(guids(&store).await, ["a", "b"]);
    store.close().await;
}

#[tokio::test]
async fn a_database_is_not_put_back_from_itself() {
    let (directory, database, copy) = paths();
    some_store(&database, "a").await;
    // Of a coordinator that was killed: not all that it has is in the file.
    let store = Store::open(&database).await.unwrap();
    store.accept_delivery(delivery("b")).await.unwrap();
    let at = |name: &str| directory.path().join(name);
    for suffix in ["", "-wal"] {
        let part = |name: &str| at(&format!("{name}{suffix}"));
        std::fs::copy(part("muster.db"), part("killed.db")).unwrap();
    }
    store.close().await;
    drop(store);
    std::os::unix::fs::symlink(at("killed.db"), at("link.db")).unwrap();
    std::os::unix::fs::symlink(directory.path(), at("again")).unwrap();
    std::fs::hard_link(at("killed.db"), at("hard.db")).unwrap();
    for name in ["killed.db", "link.db", "hard.db", "again/killed.db"] {
        let refused = restore(&at(name), &at("killed.db"), second(0)).await;
        assert!(
            matches!(refused, Err(BackupError::Live(_))),
            "{name}: {refused:?}"
        );
    }
    let store = Store::open(&at("killed.db")).await.unwrap();
    assert_eq!(guids(&store).await, ["a", "b"]);
    store.close().await;
    drop(store);

    // What was put aside may be put back.
    backup(&at("killed.db"), &copy, false).await.unwrap();
    let restored = restore(&copy, &at("killed.db"), second(0)).await.unwrap();
    let aside = restored.aside.unwrap();
    restore(&aside, &at("killed.db"), second(1)).await.unwrap();
}

#[rstest]
#[case(0o644)]
#[case(0o400)]
#[tokio::test]
async fn what_is_put_back_is_its_owners_alone_and_can_be_written(#[case] mode: u32) {
    let (directory, database, copy) = paths();
    some_store(&database, "a").await;
    backup(&database, &copy, false).await.unwrap();
    std::fs::set_permissions(&copy, Permissions::from_mode(mode)).unwrap();
    // Where there was nothing yet.
    let elsewhere = directory.path().join("new/data/muster.db");
    restore(&copy, &elsewhere, at(0)).await.unwrap();
    let mode_of = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode_of(&elsewhere), 0o600);
    assert_eq!(mode_of(elsewhere.parent().unwrap()), 0o700);
    assert_eq!(mode_of(&directory.path().join("new")), 0o700);
    let store = Store::open(&elsewhere).await.unwrap();
    store.accept_delivery(delivery("b")).await.unwrap();
    assert_eq!(guids(&store).await, ["a", "b"]);
    store.close().await;
}

#[tokio::test]
async fn a_running_coordinator_keeps_its_database() {
    let (_directory, database, copy) = paths();
    some_store(&database, "a").await;
    backup(&database, &copy, false).await.unwrap();
    let store = Store::open(&database).await.unwrap();
    store.accept_delivery(delivery("b")).await.unwrap();
    for lock in ["there", "deleted"] {
        let refused = restore(&copy, &database, at(0)).await;
        assert!(
            matches!(refused, Err(BackupError::Store(StoreError::InUse(_)))),
            "{lock}: {refused:?}"
        );
        std::fs::remove_file(database.with_file_name("muster.db.lock")).unwrap();
    }
    assert_eq!(guids(&store).await, ["a", "b"]);
    store.close().await;
}

#[tokio::test]
async fn a_copy_is_put_where_nothing_was() {
    let (directory, database, copy) = paths();
    some_store(&database, "a").await;
    backup(&database, &copy, false).await.unwrap();
    let elsewhere = directory.path().join("elsewhere.db");
    let restored = restore(&copy, &elsewhere, at(0)).await.unwrap();
    assert_eq!(restored.aside, None);
    let store = Store::open(&elsewhere).await.unwrap();
    assert_eq!(guids(&store).await, ["a"]);
    store.close().await;
}

#[tokio::test]
async fn each_of_many_restores_in_one_second_keeps_what_it_replaces() {
    let (directory, database, copy) = paths();
    let now = jiff::Timestamp::from_second(7).unwrap();
    some_store(&database, "first").await;
    backup(&database, &copy, false).await.unwrap();
    for name in ["muster.db.before-7", "muster.db.before-7-2"] {
        let restored = restore(&copy, &database, now).await.unwrap();
        assert_eq!(restored.aside, Some(directory.path().join(name)));
    }
    // Of one that somebody moved away.
    let log = directory.path().join("muster.db.before-7-3-wal");
    std::fs::write(log, "of another").unwrap();
    let restored = restore(&copy, &database, now).await.unwrap();
    let aside = restored.aside.unwrap();
    assert_eq!(aside, directory.path().join("muster.db.before-7-4"));
    let store = Store::open(&aside).await.unwrap();
    assert_eq!(guids(&store).await, ["first"]);
    store.close().await;
}
