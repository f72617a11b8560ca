//! A database that takes its time, and one that goes without a word.

use std::time::Duration;

use tokio::time::timeout;

use super::lease::{DEADLINE, QUICK, outlives};
use crate::store::database::{Database, postgres::Server};
use crate::store::fixtures::{Cluster, Mode, Wire, delivery, in_schema};
use crate::store::{LeaseTimes, Limits, PostgresSettings, Store, StoreError, schema};

/// Connections to some servers take as long as a lease lasts, while an answer on one takes no time.
#[tokio::test]
async fn a_lead_is_taken_and_held_though_connecting_takes_as_long_as_it_lasts() {
    let cluster = Cluster::shared();
    let mut settings = in_schema(cluster).await;
    settings.limits.connect = DEADLINE;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    wire.set(Mode::SlowAtFirst(QUICK.ttl));
    let leads = timeout(DEADLINE, store.lead("a", QUICK)).await;
    let leads = leads.unwrap().unwrap();
    outlives(&store, &leads, &settings).await;
}

#[tokio::test]
async fn a_connection_that_takes_longer_than_an_answer_may_renews_all_the_same() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let times = LeaseTimes {
        ttl: Duration::from_secs(6),
        renew: Duration::from_millis(200),
    };
    let leads = store.lead("a", times).await.unwrap();
    wire.set(Mode::Cut);
    timeout(DEADLINE, wire.refuses(1)).await.unwrap();
    wire.set(Mode::SlowAtFirst(3 * times.renew));
    let again = async {
        while store.accept_delivery(delivery("a")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, again).await.unwrap();
    outlives(&store, &leads, &settings).await;
}

#[tokio::test]
async fn a_server_that_goes_amid_a_change_of_the_schema_is_not_waited_for_without_end() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let limits = Limits {
        statement: Duration::from_millis(50),
        ..settings.limits
    };
    let hasty = PostgresSettings {
        limits,
        ..wire.through(&settings)
    };
    let database = Database::Postgres(Server::new(&hasty).unwrap());
    let mut db = database.connect().await.unwrap();
    wire.set(Mode::Silent);
    let migrated = timeout(DEADLINE, schema::migrate(&mut db)).await.unwrap();
    let error = migrated.unwrap_err();
    assert!(matches!(error, StoreError::TooSlow(_)), "{error}");
    assert!(error.passes(), "it is tried again");
}
