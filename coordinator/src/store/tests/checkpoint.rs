//! The write-ahead log is copied beside the writer.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use crate::store::fixtures::{Backend::Sqlite, delivery, home};

#[tokio::test]
async fn many_changes_are_copied_long_before_a_commit_would_do_so() {
    let home = home(Sqlite).await;
    let length = |suffix: &str| {
        let path = format!("{}{suffix}", home.path().display());
        std::fs::metadata(path).unwrap().len()
    };
    let empty = length("");
    // One less than are waited for.
    let first = (1..500).map(|number| home.store.accept_delivery(delivery(&format!("a{number}"))));
    for accepted in join_all(first).await {
        accepted.unwrap();
    }
    // SQLite itself begins at 4,000 pages of 4 KiB.
    assert!(length("-wal") < 4_000 * 4_096);
    assert_eq!(length(""), empty);
    home.store.accept_delivery(delivery("last")).await.unwrap();
    let copied = async {
        while length("") == empty {
            // A question to the database takes its time.
            home.store.pending_deliveries(1).await.unwrap();
        }
    };
    timeout(Duration::from_secs(30), copied).await.unwrap();
}
