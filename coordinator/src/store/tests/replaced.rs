//! A database that is taken away from under a coordinator, as by somebody who tidies up.

use std::fs;
use std::path::Path;

use rstest::rstest;

use super::backup::{backup, guids, paths};
use crate::store::fixtures::delivery;
use crate::store::{Store, StoreError};

/// What is written from now on would be found by nobody.
async fn refuses(store: &Store) {
    let refused = store.accept_delivery(delivery("lost")).await;
    assert!(
        matches!(refused, Err(StoreError::Replaced(_))),
        "{refused:?}"
    );
    let mut writable = store.writable();
    writable.wait_for(|writable| !writable).await.unwrap();
}

async fn filled(database: &Path) -> Store {
    let store = Store::open(database).await.unwrap();
    store.accept_delivery(delivery("before")).await.unwrap();
    store
}

#[tokio::test]
async fn what_is_moved_away_takes_nothing_until_it_is_back() {
    let (directory, database, _) = paths();
    let store = filled(&database).await;
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&database, &elsewhere).unwrap();
    refuses(&store).await;
    fs::rename(&elsewhere, &database).unwrap();
    let mut writable = store.writable();
    writable.wait_for(|writable| *writable).await.unwrap();
    store.accept_delivery(delivery("after")).await.unwrap();
    store.close().await;
    drop(store);
    let store = Store::open(&database).await.unwrap();
    assert_eq!(guids(&store).await, ["before", "after"]);
}

#[rstest]
#[tokio::test]
async fn what_is_deleted_or_overwritten_takes_nothing_more(#[values(true, false)] deleted: bool) {
    let (_directory, database, copy) = paths();
    let store = filled(&database).await;
    backup(&database, &copy, false).await.unwrap();
    if deleted {
        fs::remove_file(&database).unwrap();
    } else {
        fs::rename(&copy, &database).unwrap();
    }
    refuses(&store).await;
    // Nor is another made that this coordinator would then go on in.
    assert_eq!(database.exists(), !deleted);
    store.close().await;
    drop(store);
    let store = Store::open(&database).await.unwrap();
    let kept: &[&str] = if deleted { &[] } else { &["before"] };
    assert_eq!(guids(&store).await, kept);
}
