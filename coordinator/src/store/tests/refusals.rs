//! What the database refuses for good: everything, or one change.

use std::time::Duration;

use rstest::rstest;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::timeout;

use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    Cluster, Mode, Wire, delivery, home,
};
use crate::store::{PostgresSettings, Store};

const DEADLINE: Duration = Duration::from_secs(60);

async fn becomes_writable(store: &Store, wanted: bool) {
    let mut writable = store.writable();
    let waited = timeout(DEADLINE, writable.wait_for(|now| *now == wanted));
    waited.await.unwrap().unwrap();
}

#[rstest]
#[tokio::test]
async fn a_database_that_refuses_everything_is_out_of_order(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let mut db = home.raw().await;
    for table in [
        "ALTER TABLE deliveries RENAME TO lost",
        "ALTER TABLE notes RENAME TO lost_too",
    ] {
        db.command(table).await.unwrap();
    }
    let error = home.store.accept_delivery(delivery("a")).await.unwrap_err();
    assert!(!error.passes(), "{error}");
    becomes_writable(&home.store, false).await;

    for table in [
        "ALTER TABLE lost RENAME TO deliveries",
        "ALTER TABLE lost_too RENAME TO notes",
    ] {
        db.command(table).await.unwrap();
    }
    // It is found out without anybody asking.
    becomes_writable(&home.store, true).await;
    home.store.accept_delivery(delivery("a")).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn a_change_that_is_refused_leaves_the_others_alone(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let nameless = home.store.accept_delivery(delivery("")).await;
    assert!(nameless.is_err_and(|error| !error.passes()));
    home.store.accept_delivery(delivery("a")).await.unwrap();
    assert!(*home.store.writable().borrow());
    assert!(!home.store.writable().has_changed().unwrap());
}

async fn order(db: &mut PgConnection, sql: String) {
    db.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test]
async fn an_outage_that_turns_into_a_refusal_is_waited_out_with_patience() {
    let cluster = Cluster::shared();
    let mut other = PgConnection::connect(&cluster.url()).await.unwrap();
    let name = format!("outage_{:016x}", rand::random::<u64>());
    order(&mut other, format!("CREATE DATABASE {name}")).await;
    let url = cluster.url().replace("/postgres?", &format!("/{name}?"));
    let wire = Wire::to(cluster.directory()).await;
    let settings = wire.through(&PostgresSettings::new(url.into()));
    let store = Store::connect(&settings).await.unwrap();
    store.accept_delivery(delivery("a")).await.unwrap();

    wire.set(Mode::Cut);
    store.accept_delivery(delivery("b")).await.unwrap_err();
    becomes_writable(&store, false).await;
    // Its connections end a moment after the wire is cut.
    let elsewhere = format!("{name}_elsewhere");
    let ended = format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    order(&mut other, ended).await;
    order(
        &mut other,
        format!("ALTER DATABASE {name} RENAME TO {elsewhere}"),
    )
    .await;
    wire.set(Mode::Whole);
    timeout(DEADLINE, wire.carries(1)).await.unwrap();
    // Waits of two seconds at most: some tries in this time, and not thousands.
    let many = timeout(Duration::from_secs(3), wire.carries(150)).await;
    assert!(many.is_err(), "it is tried without a pause");
    assert!(!*store.writable().borrow());
    let error = store.accept_delivery(delivery("c")).await.unwrap_err();
    assert!(!error.passes(), "{error}");

    order(
        &mut other,
        format!("ALTER DATABASE {elsewhere} RENAME TO {name}"),
    )
    .await;
    becomes_writable(&store, true).await;
    store.accept_delivery(delivery("d")).await.unwrap();
    store.close().await;
    order(&mut other, format!("DROP DATABASE {name} WITH (FORCE)")).await;
}
