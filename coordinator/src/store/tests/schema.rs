//! Programs and schemas of different versions.

use std::borrow::Cow;

use rstest::rstest;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    Home, delivery, home,
};
use crate::store::{StoreError, schema};

/// The migrations of a program that is newer by one.
fn of_tomorrow(on: Backend, step: &'static str) -> Migrator {
    let today = match on {
        Sqlite => &schema::SQLITE,
        Postgres => &schema::POSTGRES,
    };
    let mut migrations = today.migrations.to_vec();
    migrations.push(Migration::new(
        9_000,
        Cow::Borrowed("of tomorrow"),
        MigrationType::Simple,
        step.into_sql_str(),
        false,
    ));
    Migrator::with_migrations(migrations)
}

async fn upgrade(home: &Home, on: Backend, step: &'static str) {
    let mut db = home.raw().await;
    schema::migrate_with(&mut db, &of_tomorrow(on, step))
        .await
        .unwrap();
    db.close().await.unwrap();
}

#[rstest]
#[tokio::test]
async fn a_schema_from_the_future_is_refused_in_plain_words(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let step = "ALTER TABLE deliveries RENAME COLUMN body TO content;
                UPDATE schema_compatibility SET least_known = 9000";
    upgrade(&home, on, step).await;
    let error = home.reopen().await.err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::NewerSchema {
                found: 9000,
                least: 9000,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("run the newer program"));
}

#[rstest]
#[tokio::test]
async fn a_newer_schema_that_is_for_this_program_too_is_taken(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    home.store
        .accept_delivery(delivery("before"))
        .await
        .unwrap();
    upgrade(&home, on, "ALTER TABLE deliveries ADD COLUMN source TEXT").await;

    // The old program works on under the new schema, and can be started anew.
    home.store
        .accept_delivery(delivery("during"))
        .await
        .unwrap();
    let home = home.reopen().await.unwrap();
    let store = &home.store;
    store.accept_delivery(delivery("after")).await.unwrap();
    let waiting = store.pending_deliveries(9).await.unwrap();
    let guids: Vec<_> = waiting.iter().map(|one| one.guid.as_str()).collect();
    assert_eq!(guids, ["before", "during", "after"]);
}

#[rstest]
#[tokio::test]
async fn a_newer_program_brings_an_older_schema_up_to_date(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let step = "ALTER TABLE deliveries ADD COLUMN source TEXT";
    upgrade(&home, on, step).await;
    // It is done once: the second time finds it done.
    upgrade(&home, on, step).await;
}

#[rstest]
#[tokio::test]
async fn a_schema_that_does_not_say_whom_it_is_for_is_for_its_own_program(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    upgrade(&home, on, "DROP TABLE schema_compatibility").await;
    let error = home.reopen().await.err().unwrap();
    assert!(
        matches!(error, StoreError::NewerSchema { least: 9000, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn both_databases_have_the_same_version() {
    let newest = |migrator: &Migrator| migrator.iter().map(|step| step.version).max();
    assert_eq!(newest(&schema::SQLITE), newest(&schema::POSTGRES));
}
