//! `cargo run --bin muster-demo`: the real coordinator and real agents on loopback, among a fake
//! GitHub and a stand-in for its runner. Exits with 0 if every job ended as it should and nothing is
//! left.

#![expect(clippy::print_stdout, reason = "it is made to be watched")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use muster_tests::demo::{self, Scene};
use muster_tests::world::{Compute, World, build};
use tokio::signal::unix::{SignalKind, signal};

/// Runs a handful of jobs over two pools, shows what happens, and proves that nothing is left.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Keep it running afterwards, and print calls to paste into another terminal.
    #[arg(long)]
    hold: bool,
    /// Where instances live: as processes that the coordinator starts, or in a fake EC2, launched by
    /// CreateFleet and enrolled by their own identity.
    #[arg(long, value_enum, default_value = "local")]
    provider: Provider,
    /// Don't build the other binaries first.
    #[arg(long)]
    no_build: bool,
}

/// Where instances live.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Provider {
    Local,
    Ec2,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too; a closed terminal doesn't change the outcome.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(64)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.no_build {
        println!("Building the coordinator, the agent and the stand-in runner.");
        build::everything()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let holding = AtomicBool::new(false);
        tokio::select! {
            outcome = run(arguments, &holding) => outcome,
            // Dropping the world ends all that it started.
            signal = interrupted(&holding) => anyhow::bail!("interrupted by {}", signal?),
        }
    })
}

/// Waits for SIGTERM, or for Ctrl-C outside of the hold, which takes it as its end.
async fn interrupted(holding: &AtomicBool) -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                if !holding.load(Ordering::Relaxed) {
                    return Ok("Ctrl-C");
                }
            }
        }
    }
}

async fn run(arguments: &Arguments, holding: &AtomicBool) -> anyhow::Result<()> {
    let compute = match arguments.provider {
        Provider::Local => {
            heading("Starting the coordinator, a fake GitHub and a fake metadata service");
            Compute::Local
        }
        Provider::Ec2 => {
            heading("Starting the coordinator, a fake GitHub and a fake AWS");
            Compute::Ec2
        }
    };
    let world = World::start(demo::options(compute)).await?;
    println!(
        "Everything is in {}; coordinator.log has the JSON logs.",
        world.dir().display()
    );

    heading("Six jobs are queued");
    let began = Instant::now();
    let scene = {
        let show = |line: &str| println!("{:>6.2}s  {line}", began.elapsed().as_secs_f64());
        tokio::select! {
            scene = demo::play(&world) => scene?,
            watched = demo::watch(&world, show) => {
                watched?;
                anyhow::bail!("the coordinator ended the stream of events");
            }
        }
    };

    heading("Why does \"train\" wait? ExplainJob says");
    for line in demo::explain_and_give_up(&world, &scene).await? {
        println!("  {line}");
    }
    show_jobs(&world, &scene).await?;
    if arguments.hold {
        holding.store(true, Ordering::Relaxed);
        hold(&world, &scene).await?;
        holding.store(false, Ordering::Relaxed);
    }

    heading("Winding down");
    let left = world.wind_down(Duration::from_secs(60)).await?;
    let calls: u64 = world.github.all_served().values().sum();
    println!("processes of instances left:      {}", left.processes.len());
    println!(
        "registrations left at GitHub:     {}",
        left.registrations.len()
    );
    println!(
        "departures from API descriptions: {} ({calls} calls to GitHub)",
        left.violations.len()
    );
    if let Some(cloud) = &world.cloud {
        println!("instances left in EC2:            {}", left.instances.len());
        let served = cloud.aws.all_served().into_iter();
        let served: Vec<_> = served
            .map(|(call, count)| format!("{call} {count}"))
            .collect();
        println!("calls to AWS:                     {}", served.join(", "));
    }
    anyhow::ensure!(left.is_nothing(), "something is left: {left:#?}");
    println!("\nAll six jobs ended as they should, and nothing is left.");
    Ok(())
}

async fn show_jobs(world: &World, scene: &Scene) -> anyhow::Result<()> {
    heading("The story of each job");
    for (name, id) in scene.jobs() {
        println!("{}", demo::show_job(world, name, id).await?);
    }
    Ok(())
}

async fn hold(world: &World, scene: &Scene) -> anyhow::Result<()> {
    heading("Holding until Ctrl-C. Calls to paste into another terminal");
    let files = world.dir().join("operator-you");
    world.coordinator.issue_operator_cert("you", &files).await?;
    println!("{}", demo::hold_commands(world, &files, scene.build));
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text}");
}
