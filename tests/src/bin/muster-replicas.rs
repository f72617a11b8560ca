//! `cargo run --bin muster-replicas`: two coordinators on one PostgreSQL, under siege. Prints figures, and exits
//! with 0 if all was right in the end, 1 with a list of what was wrong, 2 for wrong usage. Needs root.

#![expect(clippy::print_stdout, reason = "figures are printed")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use muster_tests::swarm::{Fault, Plan, Siege, besiege, verdict};

/// Kills the leader of two coordinators again and again, while a swarm of agents has jobs, and networks,
/// PostgreSQL and its disk fail in between.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Agents that wait idle.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    agents: u32,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 18)]
    kills: u32,
    /// Seconds from one kill to the next.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Milliseconds between two jobs.
    #[arg(long, default_value_t = 1_000)]
    job_every_ms: u64,
    /// Seconds within which another must serve after each kill.
    #[arg(long, default_value_t = 10)]
    gate: u64,
    /// Further lines of `[store]`, such as `lease_ttl = "5s"`.
    #[arg(long, default_value = "")]
    store: String,
    /// What times are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    // Wrong usage ends it with 2.
    let arguments = Arguments::parse();
    let began = Instant::now();
    let say = |line: &str| println!("{:>7.1}s  {line}", began.elapsed().as_secs_f64());
    let siege = Siege {
        plan: Plan {
            agents: arguments.agents,
            seed: arguments.seed,
            jobs: 60,
            job_lasts: Some(Duration::from_secs(8)),
            patience: Duration::from_mins(5),
            ..Plan::default()
        },
        kills: arguments.kills,
        every: Duration::from_secs(arguments.every),
        faults: Fault::ALL.to_vec(),
        job_every: Duration::from_millis(arguments.job_every_ms.max(1)),
        store: arguments.store,
    };
    let gate = Duration::from_secs(arguments.gate);
    let wrong: Vec<String> = match besiege(&siege, say) {
        Ok(held) => {
            let late = held.takeovers.iter().filter(|took| **took > gate);
            let late = late.map(|took| format!("nobody served for {took:.1?} after a kill"));
            late.chain(held.wrong.iter().cloned()).collect()
        }
        Err(error) => vec![format!("{error:#}")],
    };
    verdict(&wrong, |line| println!("{line}"))
}
