//! GitHub's runners beside a ledger that can't be read in full.

use muster_core::{Registration, Work};

use super::survey::{SOON, Surveying, answer, pool, quiet, survey_on};
use super::*;
use crate::clock;
use crate::grpc::sample;
use crate::store::{Batch, Store};

/// As after a roll-back: GitHub lists first the runner whose record is of a newer version.
#[tokio::test]
async fn a_record_that_can_not_be_read_keeps_nobody_else_from_being_compared() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("muster.db");
    let store = Store::open(&file).await.unwrap();
    let mut runner = sample::runner("known", Work::Busy);
    runner.scope = org();
    runner.registration = Registration::Exists { id: None };
    runner.marks.created_at = clock::now();
    let unread = sample::runner("unread", Work::Idle);
    let listed = json!([
        { "id": 1, "name": unread.name, "status": "online", "busy": false, "labels": [] },
        { "id": 2, "name": runner.name, "status": "online", "busy": false, "labels": [] },
    ]);
    let batch = Batch {
        runners: vec![unread, runner],
        ..Batch::default()
    };
    store.commit(batch).await.unwrap();
    make_unreadable(&file).await;

    let mut answers = quiet();
    answers.insert("actions/runners?", json!({ "runners": listed }));
    let github = Fake::new(move |asked| answer(asked, &answers)).await;
    let surveying = survey_on(&github, vec![pool()], store, dir).await;
    // No entry of the timeline tells of it.
    let learned = async {
        let id = Some(GithubRunnerId(2));
        while registration(&surveying).await != (Registration::Exists { id }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, learned).await.unwrap();
}

async fn registration(surveying: &Surveying) -> Registration {
    let runner = surveying
        .engine
        .query(|fleet| fleet.runner(&"known".into()).cloned());
    runner.await.unwrap().unwrap().registration
}

async fn make_unreadable(file: &std::path::Path) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let change = "UPDATE runners SET record = '{\"of\": \"tomorrow\"}' WHERE launch = 'unread'";
    sqlx::raw_sql(change).execute(&mut db).await.unwrap();
}
