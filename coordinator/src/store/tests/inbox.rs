//! The inbox.

use futures::future::join_all;
use rstest::rstest;

use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    delivery, home,
};
use crate::store::{Accepted, Batch, StoreError};

#[rstest]
#[tokio::test]
async fn a_delivery_comes_back_as_it_was_sent(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let mut sent = delivery("a");
    sent.body = vec![0, 0xff, b'\'', b'"', 0];
    assert_eq!(
        home.store.accept_delivery(sent.clone()).await.unwrap(),
        Accepted::New
    );
    assert_eq!(home.store.pending_deliveries(10).await.unwrap(), [sent]);
}

#[rstest]
#[tokio::test]
async fn the_same_guid_is_a_duplicate_even_once_processed(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    home.store.accept_delivery(delivery("a")).await.unwrap();
    let mut again = delivery("a");
    again.body = b"other".to_vec();
    let accepted = home.store.accept_delivery(again.clone()).await.unwrap();
    assert_eq!(accepted, Accepted::Duplicate);

    let processed = Batch {
        processed_deliveries: vec!["a".to_owned()],
        ..Batch::default()
    };
    home.store.commit(processed).await.unwrap();
    let accepted = home.store.accept_delivery(again).await.unwrap();
    assert_eq!(accepted, Accepted::Duplicate);
    assert_eq!(home.store.pending_deliveries(10).await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn of_many_at_once_each_guid_is_new_exactly_once(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let sends = (0..2_000).map(|n| {
        home.store
            .accept_delivery(delivery(&format!("{}", n % 500)))
    });
    let answers = join_all(sends).await;
    let new = answers
        .into_iter()
        .filter(|answer| matches!(answer, Ok(Accepted::New)))
        .count();
    assert_eq!(new, 500);
    assert_eq!(
        home.store.pending_deliveries(9_999).await.unwrap().len(),
        500
    );
}

#[rstest]
#[tokio::test]
async fn deliveries_wait_in_the_order_in_which_they_came(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    for guid in ["c", "a", "b"] {
        home.store.accept_delivery(delivery(guid)).await.unwrap();
    }
    let waiting = home.store.pending_deliveries(2).await.unwrap();
    let guids: Vec<_> = waiting.iter().map(|one| one.guid.as_str()).collect();
    assert_eq!(guids, ["c", "a"]);
}

#[rstest]
#[tokio::test]
async fn one_that_cannot_be_stored_does_its_neighbours_no_harm(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    // The schema refuses an empty guid.
    let guids: Vec<_> = (0..40)
        .map(|n| {
            if n == 17 {
                String::new()
            } else {
                n.to_string()
            }
        })
        .collect();
    let answers = join_all(
        guids
            .iter()
            .map(|guid| home.store.accept_delivery(delivery(guid))),
    )
    .await;
    for (guid, answer) in guids.iter().zip(answers) {
        match answer {
            Ok(accepted) => assert_eq!(accepted, Accepted::New, "{guid}"),
            Err(StoreError::Database(_)) => assert_eq!(guid, ""),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(home.store.pending_deliveries(99).await.unwrap().len(), 39);
}
