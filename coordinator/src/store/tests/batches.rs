//! Batches of launches: kept until settled, and a while longer.

use rstest::rstest;

use crate::store::LaunchBatch;
use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    at, home,
};

fn batch(token: &str, second: i64, settled: bool) -> LaunchBatch {
    LaunchBatch {
        token: token.to_owned(),
        account: "main".into(),
        created_at: at(second),
        settled,
        record: format!("{{\"settled\":{settled}}}"),
    }
}

#[rstest]
#[tokio::test]
async fn a_batch_that_is_not_settled_is_never_left_out_or_pruned(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    for (token, second) in [("old", 1), ("older", 0), ("new", 100)] {
        home.store
            .put_launch_batch(batch(token, second, false))
            .await
            .unwrap();
    }
    let tokens = async |after| -> Vec<String> {
        let batches = home.store.launch_batches(&"main".into(), at(after)).await;
        let batches = batches.unwrap();
        batches.into_iter().map(|batch| batch.token).collect()
    };
    assert_eq!(tokens(50).await, ["older", "old", "new"]);

    let settled = batch("old", 1, true);
    home.store.put_launch_batch(settled.clone()).await.unwrap();
    assert_eq!(tokens(50).await, ["older", "new"]);
    assert_eq!(tokens(0).await, ["older", "old", "new"]);
    let kept = home.store.launch_batches(&"main".into(), at(0)).await;
    assert!(kept.unwrap().contains(&settled));
    let others = home.store.launch_batches(&"other".into(), at(0)).await;
    assert_eq!(others.unwrap(), []);

    let pruned = home.store.prune(at(200)).await.unwrap();
    assert_eq!(pruned.launch_batches, 1);
    assert_eq!(tokens(0).await, ["older", "new"]);
}
