//! Copies that are none: refused, and nothing is replaced by them.

use sqlx::{ConnectOptions as _, Connection as _};

use super::backup::{backup, guids, paths, restore, some_store};
use crate::store::fixtures::at;
use crate::store::{BackupError, Store};

fn files(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_bad_copy_makes_no_directory() {
    let (directory, _, copy) = paths();
    std::fs::write(&copy, b"no database").unwrap();
    let elsewhere = directory.path().join("new/data/muster.db");
    let refused = restore(&copy, &elsewhere, at(0)).await;
    assert!(
        matches!(refused, Err(BackupError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(files(&directory), ["copy.db"]);
}

#[tokio::test]
async fn a_damaged_copy_is_refused_and_the_database_stays() {
    let (directory, database, copy) = paths();
    some_store(&database, "a").await;
    backup(&database, &copy, false).await.unwrap();
    let whole = std::fs::read(&copy).unwrap();
    let mut torn = whole.clone();
    torn.truncate(whole.len() / 2);
    let mut flipped = whole.clone();
    for byte in &mut flipped[8_192..12_288] {
        *byte = !*byte;
    }
    for bad in [torn, flipped, b"no database".to_vec(), Vec::new()] {
        std::fs::write(&copy, bad).unwrap();
        let refused = restore(&copy, &database, at(0)).await;
        assert!(
            matches!(refused, Err(BackupError::Damaged { .. })),
            "{refused:?}"
        );
    }
    let store = Store::open(&database).await.unwrap();
    assert_eq!(guids(&store).await, ["a"]);
    store.close().await;
    let aside = |name: &String| name.contains("before");
    assert_eq!(
        files(&directory).iter().filter(|name| aside(name)).count(),
        0
    );
}

/// It is a database, and would be found to be none of ours when it is needed.
#[tokio::test]
async fn what_a_coordinator_could_not_go_on_with_is_not_copied() {
    let (directory, database, copy) = paths();
    let another = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&database)
        .create_if_missing(true);
    let mut another = another.connect().await.unwrap();
    let made = sqlx::query("CREATE TABLE songs (name TEXT)");
    made.execute(&mut another).await.unwrap();
    another.close().await.unwrap();
    let refused = backup(&database, &copy, false).await;
    assert!(
        matches!(refused, Err(BackupError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(files(&directory), ["muster.db"]);
}
