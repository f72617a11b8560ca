//! Chaos: jobs in compressed time while capacity runs out, calls are throttled and their answers lost, Spot
//! takes instances back, webhooks go missing and the coordinator is killed. Nothing launches twice, no
//! instance is left, no job is lost, each is explained. `tests/benches/chaos` plays the long game.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what surprises a test's helper fails the test, which prints its figures"
)]

mod burst;
mod coordinator;
mod game;
mod hosts;
mod judge;
mod listener;
mod pace;
mod plant;
mod population;
mod report;
mod tally;

use muster_tests::bench::machine;

use self::burst::burst;
use self::game::{Terms, play};

/// A number of the environment, such as `MUSTER_SEED`.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn play_and_judge(terms: Terms) {
    if let Ok(path) = std::env::var("MUSTER_CHAOS_LOG") {
        let file = std::fs::File::create(path).unwrap();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(file)
            .init();
    }
    println!("seed {}", terms.seed);
    let report = play(terms).await;
    println!("{report}");
    assert!(report.wrong.is_empty(), "seed {}", terms.seed);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_launched_twice_leaked_or_lost() {
    play_and_judge(Terms {
        seed: number("MUSTER_SEED").unwrap_or(1),
        jobs: 300,
        speed: 100,
        rate: 0.4,
        max: 60,
        kill_within: 240.0,
    })
    .await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes: tests/benches/chaos runs it"]
async fn the_long_game() {
    let jobs = number("MUSTER_JOBS").and_then(|jobs| u32::try_from(jobs).ok());
    play_and_judge(Terms {
        seed: number("MUSTER_SEED").unwrap_or_else(rand::random),
        jobs: jobs.unwrap_or(10_000),
        speed: 100,
        rate: 0.8,
        max: 200,
        kill_within: 600.0,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_asked_for_in_few_calls() {
    let burst = burst(200).await;
    println!("{burst}");
    assert_eq!((burst.asked_for, burst.instances), (200, 200));
    // Webhooks trickle in while the first calls are under way: it is mostly five to nine.
    assert!(burst.calls <= 40, "{burst}");
    assert_eq!(burst.refused, 0);
    assert_eq!(burst.violations, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure: tests/benches/burst prints it"]
async fn the_great_burst() {
    let jobs = number("MUSTER_JOBS").and_then(|jobs| u32::try_from(jobs).ok());
    let burst = burst(jobs.unwrap_or(1_000)).await;
    println!("{}\n{burst}", machine::describe());
    assert_eq!(burst.refused, 0);
}
