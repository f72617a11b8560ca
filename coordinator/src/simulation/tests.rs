//! Lives from seeds, each of which must end well.

use rstest::rstest;

use super::plan::Plan;
use super::run::{Outcome, run};

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What went wrong in a life, if anything did, for people.
fn wrong(outcome: &Outcome) -> Option<String> {
    let first = outcome.violations.first()?;
    Some(format!(
        "seed {seed} went wrong:\n{}\n\nwhat happened last:\n{}\n\nseed {seed}: {first}",
        outcome.violations.join("\n"),
        outcome.story,
        seed = outcome.seed,
    ))
}

fn must_be_right(outcome: &Outcome) {
    if let Some(wrong) = wrong(outcome) {
        panic!("{wrong}");
    }
}

/// 20,000 jobs in all. Each case is a process of its own.
#[rstest]
fn lives_end_well(
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)] part: u64,
) {
    for life in 1..=2 {
        let seed = part * 100 + life;
        must_be_right(&run(seed, 500, Plan::of(seed)));
    }
}

/// Invariant 9, in time: nothing else is slow here.
#[rstest]
fn a_host_that_will_be_taken_gets_no_job(#[values(1, 2)] seed: u64) {
    must_be_right(&run(seed, 400, Plan::taken_hosts()));
}

/// Invariant 10: who knocks in vain while nothing can be stored is heard before it is judged.
#[rstest]
fn no_job_is_ended_for_an_outage(#[values(1, 2)] seed: u64) {
    must_be_right(&run(seed, 400, Plan::long_outages()));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let [first, second] = [(); 2].map(|()| run(42, 100, Plan::storm()));
    assert_eq!(
        (first.lines, first.digest),
        (second.lines, second.digest),
        "{}\n\nand\n\n{}",
        first.story,
        second.story
    );
    let other = run(43, 100, Plan::storm());
    assert_ne!(first.digest, other.digest);
}

/// Plays lives until there were `MUSTER_SIMULATION_TOTAL` jobs (default: one life) of `MUSTER_SIMULATION_JOBS`
/// each, from `MUSTER_SIMULATION_SEED` on; writes all that happens to the file `MUSTER_SIMULATION_STORY`, if there
/// is one. A life that goes wrong is told, and the next one is played. `tests/benches/simulation` starts it.
#[test]
#[ignore = "for as long as wanted: tests/benches/simulation"]
fn one_life() {
    let jobs = given("MUSTER_SIMULATION_JOBS").unwrap_or(500);
    let total = given("MUSTER_SIMULATION_TOTAL").unwrap_or(jobs);
    let first = given("MUSTER_SIMULATION_SEED").unwrap_or(1);
    let (mut played, mut wrong_ones) = (0, Vec::new());
    for seed in first.. {
        let began = std::time::Instant::now();
        let outcome = run(seed, usize::try_from(jobs).unwrap(), Plan::of(seed));
        played += outcome.jobs as u64;
        println!(
            "seed {seed}: {} jobs, {} instances, {} lives, {} run again, {} h simulated in {:.1} s, {} so far",
            outcome.jobs,
            outcome.instances,
            outcome.lives,
            outcome.reruns,
            outcome.lasted.as_secs() / 3600,
            began.elapsed().as_secs_f64(),
            played
        );
        if let Some(wrong) = wrong(&outcome) {
            println!("{wrong}");
            wrong_ones.push(seed);
        }
        if played >= total {
            break;
        }
    }
    assert_eq!(wrong_ones, [0_u64; 0], "seeds of lives that went wrong");
}
