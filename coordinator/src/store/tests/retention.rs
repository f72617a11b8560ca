//! Nothing goes by a clock that may be wrong.

use std::time::Duration;

use jiff::Timestamp;
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use crate::clock::simulated;
use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    Home, at, entry, home,
};
use crate::store::{Batch, NotPruned, Retention, TimelineQuery};

const DAY: i64 = 24 * 3600;
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// A store with entries of a day and of ten days ago, at the time of zero.
async fn with_history(on: Backend) -> Home {
    let home = home(on).await;
    add(&home, &[-10 * DAY, -DAY]).await;
    home
}

async fn add(home: &Home, times: &[i64]) {
    let timeline = times.iter().map(|time| entry(*time, "it happened"));
    let batch = Batch {
        timeline: timeline.collect(),
        ..Batch::default()
    };
    home.store.commit(batch).await.unwrap();
}

async fn left(home: &Home) -> Vec<Timestamp> {
    let query = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    let entries = home.store.timeline(query).await.unwrap();
    entries.into_iter().map(|stored| stored.entry.at).collect()
}

#[rstest]
#[tokio::test]
async fn a_clock_that_agrees_with_the_timeline_is_believed(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = with_history(on).await;
    let retention = Retention::begin(home.store.clone(), KEPT).await.unwrap();
    let pruned = retention.prune(at(0), HOUR).await.unwrap();
    assert_eq!(pruned.timeline, 1);
    assert_eq!(left(&home).await, [at(-DAY)]);
}

#[rstest]
#[case::by_a_clock_that_is_ahead(30 * DAY)]
#[case::by_a_clock_that_is_behind(-2 * DAY)]
#[tokio::test]
async fn nothing_goes(#[case] now: i64) {
    let home = with_history(Sqlite).await;
    let retention = Retention::begin(home.store.clone(), KEPT).await.unwrap();
    // What the same clock has written since proves nothing.
    add(&home, &[now]).await;
    let refused = retention.prune(at(now), HOUR).await.unwrap_err();
    match refused {
        NotPruned::All { newest, .. } => assert!(now > 0 && newest == at(-DAY)),
        NotPruned::Ahead { newest, .. } => assert!(now < 0 && newest == at(-DAY)),
        NotPruned::Store(error) => panic!("{error}"),
    }
    assert_eq!(left(&home).await.len(), 3);
}

#[tokio::test]
async fn a_process_that_has_run_for_as_long_as_things_are_kept_needs_no_proof() {
    let home = with_history(Sqlite).await;
    let retention = Retention::begin(home.store.clone(), KEPT).await.unwrap();
    // The service had been off for a month.
    add(&home, &[30 * DAY]).await;
    let pruned = retention.prune(at(37 * DAY), KEPT).await.unwrap();
    assert_eq!(pruned.timeline, 2);
    assert_eq!(left(&home).await, [at(30 * DAY)]);
}

#[tokio::test]
async fn a_store_without_a_timeline_says_nothing_against_the_clock() {
    let home = home(Sqlite).await;
    let retention = Retention::begin(home.store.clone(), KEPT).await.unwrap();
    retention.prune(at(0), HOUR).await.unwrap();
}

#[tokio::test]
async fn the_first_time_is_after_an_interval() {
    simulated::start(at(0));
    let home = with_history(Sqlite).await;
    let retention = Retention::begin(home.store.clone(), KEPT).await.unwrap();
    let stop = CancellationToken::new();
    let seldom = tokio::spawn(retention.clone().run(HOUR, stop.clone()));
    // To prune takes a few changes, which are written in turn with these.
    for _ in 0..50 {
        home.store.set_note("look", "again").await.unwrap();
        assert_eq!(left(&home).await.len(), 2);
    }
    let often = tokio::spawn(retention.run(Duration::from_millis(10), stop.clone()));
    let pruned = async {
        // Each look is a question to the database, which takes its time.
        while left(&home).await.len() == 2 {}
    };
    tokio::time::timeout(Duration::from_secs(10), pruned)
        .await
        .expect("nothing was pruned");
    stop.cancel();
    seldom.await.unwrap();
    often.await.unwrap();
}
