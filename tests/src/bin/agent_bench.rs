//! The agent's figures beside its peers', in one run. See `tests/benches/agent`.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use muster_tests::bench::agent::{self, Plan};
use muster_tests::bench::machine;

/// Measures the agent beside prometheus-node-exporter and collectd.
#[derive(Parser)]
struct Arguments {
    /// The agent's binary, built as it ships.
    #[arg(long)]
    agent: PathBuf,
    /// For how long the processor time is measured.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many starts are measured.
    #[arg(long, default_value_t = 1000)]
    starts: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!("{}", machine::describe());
    let plan = Plan {
        agent: std::path::absolute(&arguments.agent)?,
        measured: Duration::from_secs(arguments.seconds.max(5)),
        starts: arguments.starts.max(1),
    };
    print!("{}", agent::measure(&plan).await?);
    Ok(())
}
