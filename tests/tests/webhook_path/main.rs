//! The path of a webhook, with both stores: a short run that must answer everything, and the figures
//! (`tests/benches/webhooks`).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what surprises a test's helper fails the test"
)]

mod intake;
mod sender;

use std::time::Duration;

use muster_tests::bench::machine;
use rstest::rstest;

use self::intake::{Intake, Kind};
use self::sender::{Figures, Orders, send};

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_delivery_of_many_at_once_is_answered_and_there(#[case] kind: Kind) {
    let intake = Intake::start(kind, &["fsync=off"]).await;
    let orders = Orders {
        address: intake.address,
        connections: 32,
        count: 500,
        rate: None,
        first: 0,
    };
    let figures = sent(orders).await;
    // One in ten is sent a second time.
    assert_eq!((figures.accepted, figures.duplicates), (500, 50));
    assert_eq!(intake.stored().await, 500);
    intake.stop().await;
}

/// Sends from a thread of its own, as GitHub is not in our process.
async fn sent(orders: Orders) -> Figures {
    let sending = tokio::task::spawn_blocking(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(send(orders))
    });
    sending.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a bench: tests/benches/webhooks"]
async fn the_figures() {
    let rate = number("MUSTER_RATE").unwrap_or(2_500);
    let seconds = number("MUSTER_SECONDS").unwrap_or(20);
    println!("{}", machine::describe());
    println!("gate: 2,500/s with SQLite at p99 10 ms; aim: 10,000/s at p99 5 ms");
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let intake = Intake::start(kind, &["fsync=on", "full_page_writes=on"]).await;
        let mut orders = Orders {
            address: intake.address,
            connections: 128,
            count: rate * 2,
            rate: None,
            first: 0,
        };
        // Once to warm up, then as fast as answers come, then at the rate.
        for (title, count, wanted) in [
            ("warm up", rate * 2, None),
            ("as fast as it goes", rate * seconds, None),
            ("at the rate", rate * seconds, Some(rate)),
        ] {
            orders.first += orders.count;
            (orders.count, orders.rate) = (count, wanted);
            let figures = sent(orders.clone()).await;
            let per_second = f64::from(figures.accepted + figures.duplicates)
                / figures.lasted.as_secs_f64().max(f64::MIN_POSITIVE);
            println!(
                "{kind:?}, {title}: {per_second:.0}/s, p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
                millis(figures.quantile(0.5)),
                millis(figures.quantile(0.99)),
                millis(figures.quantile(1.0)),
            );
        }
        intake.stop().await;
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
