//! Queries of the timeline.

use muster_core::{JobId, LaunchId, PoolName};
use rstest::rstest;
use sqlx::ConnectOptions as _;

use crate::store::database::sqlite;
use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    Home, entry, home,
};
use crate::store::{Batch, StoredEntry, TimelineQuery};

/// Ten entries: odd ones of pool `odd`, those from 6 on of launch `l`, every third of job 3.
async fn ten(on: Backend) -> (Home, Vec<StoredEntry>) {
    let home = home(on).await;
    let timeline = (0..10)
        .map(|n| {
            let mut entry = entry(n, &n.to_string());
            entry.pool = (n % 2 == 1).then(|| PoolName::from("odd"));
            entry.launch = (n >= 6).then(|| LaunchId::from("l"));
            entry.job = (n % 3 == 0).then_some(JobId(3));
            entry
        })
        .collect();
    let batch = Batch {
        timeline,
        ..Batch::default()
    };
    let entries = home.store.commit(batch).await.unwrap();
    (home, entries)
}

async fn what(home: &Home, query: TimelineQuery) -> String {
    let entries = home.store.timeline(query).await.unwrap();
    entries.into_iter().map(|one| one.entry.what).collect()
}

#[rstest]
#[tokio::test]
async fn conditions_add_up_and_job_and_launch_are_alternatives(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let (home, entries) = ten(on).await;
    let all = TimelineQuery {
        limit: 99,
        ..TimelineQuery::default()
    };
    let job = Some(JobId(3));
    let launch = Some(LaunchId::from("l"));
    let pool = Some(PoolName::from("odd"));
    let after = Some(entries[4].sequence);
    let cases = [
        (all.clone(), "0123456789"),
        (TimelineQuery { job, ..all.clone() }, "0369"),
        (
            TimelineQuery {
                launch: launch.clone(),
                ..all.clone()
            },
            "6789",
        ),
        (
            TimelineQuery {
                pool: pool.clone(),
                ..all.clone()
            },
            "13579",
        ),
        (
            TimelineQuery {
                job,
                launch: launch.clone(),
                ..all.clone()
            },
            "036789",
        ),
        (
            TimelineQuery {
                job,
                launch: launch.clone(),
                pool: pool.clone(),
                ..all.clone()
            },
            "379",
        ),
        (
            TimelineQuery {
                after,
                ..all.clone()
            },
            "56789",
        ),
        (
            TimelineQuery {
                after,
                limit: 2,
                ..all.clone()
            },
            "56",
        ),
        (
            TimelineQuery {
                limit: 2,
                ..all.clone()
            },
            "89",
        ),
        (
            TimelineQuery {
                job,
                limit: 2,
                ..all.clone()
            },
            "69",
        ),
        (
            TimelineQuery {
                job,
                launch,
                pool,
                after,
                limit: 1,
            },
            "7",
        ),
        (TimelineQuery { limit: 0, ..all }, ""),
    ];
    for (query, expected) in cases {
        assert_eq!(what(&home, query.clone()).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn one_job_is_found_by_index() {
    let (home, _) = ten(Sqlite).await;
    let mut db = sqlite::options(home.path()).connect().await.unwrap();
    for (column, sql) in [
        (
            "job",
            "EXPLAIN QUERY PLAN SELECT what FROM timeline WHERE TRUE AND job = 3 ORDER BY sequence DESC LIMIT 5",
        ),
        (
            "launch",
            "EXPLAIN QUERY PLAN SELECT what FROM timeline WHERE TRUE AND launch = 'l' AND sequence > 5 ORDER BY sequence ASC LIMIT 5",
        ),
        (
            "job",
            "EXPLAIN QUERY PLAN SELECT what FROM timeline WHERE TRUE AND sequence IN (SELECT sequence FROM timeline WHERE job = 3 UNION SELECT sequence FROM timeline WHERE launch = 'l') ORDER BY sequence DESC LIMIT 5",
        ),
    ] {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sql).fetch_all(&mut db).await.unwrap();
        let index = format!("INDEX timeline_{column}");
        assert!(plan.iter().any(|step| step.3.contains(&index)), "{plan:?}");
        assert!(
            !plan.iter().any(|step| step.3.starts_with("SCAN timeline")),
            "{plan:?}"
        );
    }
}
