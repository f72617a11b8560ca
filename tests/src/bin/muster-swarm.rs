//! `cargo run --bin muster-swarm`: thousands of agents against the real coordinator. Prints figures, and
//! exits with 0 if all was right in the end, 1 with a list of what was wrong, 2 for wrong usage.

#![expect(clippy::print_stdout, reason = "figures are printed")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use muster_tests::swarm::{self, Habits, Plan, verdict};
use muster_tests::world::build;

/// Has many agents enrol with the real coordinator over mutual TLS, hold their streams, misbehave and come
/// back, kills the coordinator under them, and judges what it says afterwards.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Agents that wait idle. Each is a connection on both sides: see `ulimit -n`.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    agents: u32,
    /// Agents that enrol at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    enrolling: u32,
    /// What habits and waits are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds between two heartbeats of an agent.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=300_000))]
    heartbeat_ms: u64,
    /// Seconds at rest, and again with habits.
    #[arg(long, default_value_t = 30)]
    steady: u64,
    /// How often all agents drop their connections at once.
    #[arg(long, default_value_t = 1)]
    storms: u32,
    /// How often the coordinator is killed with SIGKILL.
    #[arg(long, default_value_t = 1)]
    kills: u32,
    /// Jobs that run meanwhile; at most 450.
    #[arg(long, default_value_t = 20)]
    jobs: u32,
    /// Weights of the agents' habits, such as steady=80,stalls=5,vanishes=5,half-open=5,storms=5.
    #[arg(long)]
    habits: Option<Habits>,
    /// Seconds that agents' certificates live.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(10..=3_600))]
    certificate_ttl: u64,
    /// Seconds that all agents may take to be back, and the state to be right, after a kill.
    #[arg(long)]
    gate: Option<u64>,
    /// Seconds that anything may take.
    #[arg(long, default_value_t = 1_800)]
    patience: u64,
    /// Don't build the coordinator first.
    #[arg(long)]
    no_build: bool,
}

impl Arguments {
    fn plan(&self) -> Plan {
        Plan {
            agents: self.agents,
            enrolling: usize::try_from(self.enrolling).unwrap_or(usize::MAX),
            seed: self.seed,
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            steady: Duration::from_secs(self.steady),
            storms: self.storms,
            kills: self.kills,
            jobs: self.jobs,
            job_lasts: None,
            habits: self.habits.unwrap_or_default(),
            certificate_ttl: Duration::from_secs(self.certificate_ttl),
            patience: Duration::from_secs(self.patience),
        }
    }
}

fn main() -> ExitCode {
    // Wrong usage ends it with 2.
    let arguments = Arguments::parse();
    let wrong = match run(&arguments) {
        Ok(wrong) => wrong,
        Err(error) => vec![format!("{error:#}")],
    };
    verdict(&wrong, |line| println!("{line}"))
}

fn run(arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    if !arguments.no_build {
        println!("Building the coordinator.");
        build::everything()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (plan, began) = (arguments.plan(), Instant::now());
    let say = |line: &str| println!("{:>7.1}s  {line}", began.elapsed().as_secs_f64());
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = swarm::play(&plan, say) => outcome,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })?;
    let mut wrong = outcome.wrong;
    let gate = arguments.gate.map(Duration::from_secs);
    for (_, right) in outcome.kills {
        if let Some(gate) = gate.filter(|gate| right > *gate) {
            wrong.push(format!(
                "after a kill the state was right after {right:.1?}, and not within {gate:?}"
            ));
        }
    }
    Ok(wrong)
}
