//! Enrolments.

use futures::future::join_all;
use rstest::rstest;

use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    at, home,
};
use crate::store::{Claimed, Enrolment};

fn enrolment(key: u8) -> Enrolment {
    Enrolment {
        account_id: "123456789012".to_owned(),
        region: "eu-west-1".to_owned(),
        instance: "i-0123456789abcdef0".into(),
        launched_at: at(0),
        launch: "l".into(),
        key_hash: [key; 32],
        at: at(1),
    }
}

#[rstest]
#[tokio::test]
async fn of_64_callers_one_enrols_the_instance(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let calls = (0..64).map(|key| {
        let store = home.store.clone();
        tokio::spawn(async move { store.claim_enrolment(enrolment(key)).await })
    });
    let mut winners = 0;
    for answer in join_all(calls).await {
        match answer.unwrap().unwrap() {
            Claimed::Now => winners += 1,
            other => assert_eq!(other, Claimed::Already),
        }
    }
    assert_eq!(winners, 1);
    let home = home.crash().await;
    let late = home.store.claim_enrolment(enrolment(99)).await.unwrap();
    assert_eq!(late, Claimed::Already);
}

#[rstest]
#[tokio::test]
async fn the_same_key_again_is_the_same_enrolment(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let claim = async |enrolment| home.store.claim_enrolment(enrolment).await.unwrap();
    assert_eq!(claim(enrolment(1)).await, Claimed::Now);
    assert_eq!(claim(enrolment(1)).await, Claimed::BySameKey);
    let mut restarted = enrolment(1);
    restarted.launched_at = at(60);
    assert_eq!(claim(restarted).await, Claimed::Already);
}

#[rstest]
#[tokio::test]
async fn an_instance_is_of_its_account_and_region(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let claim = async |enrolment| home.store.claim_enrolment(enrolment).await.unwrap();
    assert_eq!(claim(enrolment(1)).await, Claimed::Now);
    let mut other = enrolment(2);
    other.launch = "m".into();
    assert_eq!(claim(other.clone()).await, Claimed::Already);
    other.account_id = "210987654321".to_owned();
    assert_eq!(claim(other.clone()).await, Claimed::Now);
    other.launch = "n".into();
    other.region = "eu-west-2".to_owned();
    assert_eq!(claim(other).await, Claimed::Now);
}
