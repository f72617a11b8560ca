//! What goes, and what must not.

use muster_core::{InstanceId, JobId, JobStatus, LaunchId, PoolName};
use rstest::rstest;

use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    at, delivery, entry, home, job, launch, runner,
};
use crate::store::{Accepted, Batch, Enrolment, JoinToken, Pruned, Redeemed, TimelineQuery};

const DAY: i64 = 24 * 3600;

#[rstest]
#[tokio::test]
async fn only_what_is_old_and_over_goes(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    for guid in ["processed", "waiting"] {
        home.store.accept_delivery(delivery(guid)).await.unwrap();
    }
    let batch = Batch {
        // Jobs end at 60 s, runners at 2 s.
        jobs: vec![
            job(1, JobStatus::Completed, 1),
            job(2, JobStatus::Completed, 1),
        ],
        runners: vec![runner("l1", 3), runner("l2", 3)],
        forgotten_jobs: vec![JobId(1)],
        forgotten_runners: vec![LaunchId::from("l1")],
        timeline: vec![entry(0, "old"), entry(DAY, "new")],
        effects: vec![launch("l3")],
        processed_deliveries: vec!["processed".to_owned()],
        ..Batch::default()
    };
    home.store.commit(batch).await.unwrap();

    assert_eq!(home.store.prune(at(-1)).await.unwrap(), Pruned::default());
    let pruned = home.store.prune(at(61)).await.unwrap();
    let expected = Pruned {
        bodies: 1,
        deliveries: 0,
        jobs: 1,
        runners: 1,
        timeline: 1,
        join_tokens: 0,
        launch_batches: 0,
        enrolments: 0,
    };
    assert_eq!(pruned, expected);

    assert_eq!(home.store.job(JobId(1)).await.unwrap(), None);
    let stored = home.store.load().await.unwrap();
    assert_eq!((stored.jobs.len(), stored.runners.len()), (1, 1));
    assert_eq!(home.store.pending_effects().await.unwrap().len(), 1);
    assert_eq!(home.store.pending_deliveries(9).await.unwrap().len(), 1);
    let query = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    let left = home.store.timeline(query).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].entry.what, "new");
}

#[rstest]
#[tokio::test]
async fn a_guid_is_known_for_three_days_more(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    home.store.accept_delivery(delivery("a")).await.unwrap();
    let processed = Batch {
        processed_deliveries: vec!["a".to_owned()],
        ..Batch::default()
    };
    home.store.commit(processed).await.unwrap();
    let accept = async || home.store.accept_delivery(delivery("a")).await.unwrap();

    home.store.prune(at(3 * DAY)).await.unwrap();
    assert_eq!(accept().await, Accepted::Duplicate);
    home.store.prune(at(3 * DAY + 1)).await.unwrap();
    assert_eq!(accept().await, Accepted::New);
}

#[rstest]
#[tokio::test]
async fn a_launch_that_lives_stays_marked_as_enrolled(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let token = |hash| JoinToken {
        hash: [hash; 32],
        launch: LaunchId::from("l1"),
        pool: PoolName::from("linux"),
        instance: InstanceId::from("i-1"),
        expires_at: at(100),
    };
    let live = Batch {
        runners: vec![runner("l1", 1)],
        ..Batch::default()
    };
    home.store.commit(live).await.unwrap();
    home.store.put_join_token(token(1)).await.unwrap();
    let first = home.store.redeem_join_token([1; 32], at(0)).await.unwrap();
    assert!(matches!(first, Redeemed::Now(_)));

    let enrolment = Enrolment {
        account_id: "123456789012".to_owned(),
        region: "eu-west-1".to_owned(),
        instance: InstanceId::from("i-1"),
        launched_at: at(0),
        launch: LaunchId::from("l1"),
        key_hash: [1; 32],
        at: at(1),
    };
    home.store.claim_enrolment(enrolment).await.unwrap();

    let pruned = home.store.prune(at(DAY)).await.unwrap();
    assert_eq!((pruned.join_tokens, pruned.enrolments), (0, 0));
    home.store.put_join_token(token(2)).await.unwrap();
    let second = home.store.redeem_join_token([2; 32], at(0)).await.unwrap();
    assert_eq!(second, Redeemed::Already);

    let over = Batch {
        forgotten_runners: vec![LaunchId::from("l1")],
        ..Batch::default()
    };
    home.store.commit(over).await.unwrap();
    let pruned = home.store.prune(at(DAY)).await.unwrap();
    assert_eq!((pruned.join_tokens, pruned.enrolments), (2, 1));
}

#[rstest]
#[tokio::test]
async fn more_than_one_chunk_goes_and_numbers_are_not_used_again(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let batch = Batch {
        timeline: (0..1_201).map(|_| entry(0, "old")).collect(),
        ..Batch::default()
    };
    let last = home.store.commit(batch).await.unwrap()[1_200].sequence;
    assert_eq!(home.store.prune(at(1)).await.unwrap().timeline, 1_201);
    let batch = Batch {
        timeline: vec![entry(2, "next")],
        ..Batch::default()
    };
    let next = home.store.commit(batch).await.unwrap()[0].sequence;
    assert!(next > last);
}
