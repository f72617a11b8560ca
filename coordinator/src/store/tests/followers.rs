//! Coordinators that don't lead.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use secrecy::ExposeSecret as _;

use crate::store::fixtures::{Backend::Postgres, delivery, home, job};
use crate::store::{Accepted, Batch, Store, StoreError};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_follower_stores_deliveries_and_nothing_else() {
    let home = home(Postgres).await;
    let follower = Store::connect(home.settings()).await.unwrap();
    let batch = Batch {
        jobs: vec![job(1, muster_core::JobStatus::Queued, 1)],
        ..Batch::default()
    };
    let (accepted, refused, note) = tokio::join!(
        follower.accept_delivery(delivery("a")),
        follower.commit(batch),
        follower.set_note("n", "v"),
    );
    assert_eq!(accepted.unwrap(), Accepted::New);
    assert!(matches!(refused, Err(StoreError::NotLeader)), "{refused:?}");
    assert!(matches!(note, Err(StoreError::NotLeader)), "{note:?}");

    let again = home.store.accept_delivery(delivery("a")).await.unwrap();
    assert_eq!(again, Accepted::Duplicate);
    assert_eq!(home.store.pending_deliveries(9).await.unwrap().len(), 1);
    assert!(*follower.writable().borrow(), "to be refused is no outage");
}

#[tokio::test]
async fn the_leader_hears_of_a_followers_delivery_and_not_of_its_own() {
    let home = home(Postgres).await;
    let follower = Store::connect(home.settings()).await.unwrap();
    let url = home.settings().url.expose_secret();
    let mut listener = PgListener::connect(url).await.unwrap();
    listener.listen("muster_deliveries").await.unwrap();
    let schema = url.rsplit('=').next().unwrap();

    home.store.accept_delivery(delivery("own")).await.unwrap();
    follower.accept_delivery(delivery("other")).await.unwrap();
    home.store.accept_delivery(delivery("own-2")).await.unwrap();
    follower.accept_delivery(delivery("last")).await.unwrap();
    let mut heard = 0;
    while heard < 2 {
        // Other tests speak on the same server.
        let notice = timeout(DEADLINE, listener.recv()).await.unwrap().unwrap();
        heard += usize::from(notice.payload() == schema);
    }
    while let Some(notice) = listener.next_buffered() {
        assert_ne!(notice.payload(), schema);
    }
}

#[tokio::test]
async fn deliveries_are_looked_for_though_nobody_says_so() {
    let home = home(Postgres).await;
    let looked = Arc::new(Notify::new());
    let tell = Arc::clone(&looked);
    let stop = CancellationToken::new();
    let store = home.store.clone();
    let until = stop.clone();
    let watching = tokio::spawn(async move {
        store
            .watch_deliveries(move || tell.notify_one(), until)
            .await;
    });
    for _ in 0..3 {
        timeout(DEADLINE, looked.notified()).await.unwrap();
    }
    stop.cancel();
    timeout(DEADLINE, watching).await.unwrap().unwrap();
}
