//! Join tokens.

use futures::future::join_all;
use muster_core::{InstanceId, LaunchId, PoolName};
use rstest::rstest;

use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    at, home,
};
use crate::store::{JoinToken, Redeemed};

fn token(hash: u8, launch: &str) -> JoinToken {
    JoinToken {
        hash: [hash; 32],
        launch: LaunchId::from(launch),
        pool: PoolName::from("linux"),
        instance: InstanceId::from("i-1"),
        expires_at: at(100),
    }
}

#[rstest]
#[tokio::test]
async fn spire_1_14_6_of_64_callers_one_gets_the_token(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    home.store.put_join_token(token(1, "l")).await.unwrap();
    let calls = (0..64).map(|_| {
        let store = home.store.clone();
        tokio::spawn(async move { store.redeem_join_token([1; 32], at(0)).await })
    });
    let mut winners = 0;
    for answer in join_all(calls).await {
        match answer.unwrap().unwrap() {
            Redeemed::Now(won) => {
                assert_eq!(won, token(1, "l"));
                winners += 1;
            }
            other => assert_eq!(other, Redeemed::Already),
        }
    }
    assert_eq!(winners, 1);
    let home = home.crash().await;
    let late = home.store.redeem_join_token([1; 32], at(0)).await.unwrap();
    assert_eq!(late, Redeemed::Already);
}

#[rstest]
#[tokio::test]
async fn a_newer_token_of_the_launch_replaces_an_unused_one(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    home.store.put_join_token(token(1, "l")).await.unwrap();
    home.store.put_join_token(token(2, "l")).await.unwrap();
    home.store.put_join_token(token(9, "other")).await.unwrap();
    let redeem = async |hash| {
        home.store
            .redeem_join_token([hash; 32], at(0))
            .await
            .unwrap()
    };
    assert_eq!(redeem(1).await, Redeemed::Unknown);
    assert_eq!(redeem(2).await, Redeemed::Now(token(2, "l")));
    assert_eq!(redeem(9).await, Redeemed::Now(token(9, "other")));
}

#[rstest]
#[tokio::test]
async fn a_launch_that_has_enrolled_can_never_enrol_again(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let redeem = async |hash| {
        home.store
            .redeem_join_token([hash; 32], at(0))
            .await
            .unwrap()
    };
    home.store.put_join_token(token(1, "l")).await.unwrap();
    assert_eq!(redeem(1).await, Redeemed::Now(token(1, "l")));
    home.store.put_join_token(token(2, "l")).await.unwrap();
    assert_eq!(redeem(2).await, Redeemed::Already);
    assert_eq!(redeem(1).await, Redeemed::Already);
}

#[rstest]
#[tokio::test]
async fn a_token_works_until_the_moment_it_expires(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    home.store.put_join_token(token(1, "l")).await.unwrap();
    let redeem = async |now| home.store.redeem_join_token([1; 32], now).await.unwrap();
    assert_eq!(redeem(at(100)).await, Redeemed::Expired);
    assert_eq!(redeem(at(99)).await, Redeemed::Now(token(1, "l")));
    assert_eq!(redeem(at(100)).await, Redeemed::Already);
}

#[rstest]
#[tokio::test]
async fn a_token_that_was_never_made_is_unknown(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let answer = home.store.redeem_join_token([7; 32], at(0)).await.unwrap();
    assert_eq!(answer, Redeemed::Unknown);
}
