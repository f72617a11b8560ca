//! `kill -9` of the coordinator at a random moment of the demo, then a start: every job is accounted
//! for, and nothing is left. Each run has a number; with `MUSTER_SEED` the moments are others.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that can't go on fails, and says which run it was"
)]

use std::time::Duration;

use muster_proto::v1::{JobState, ListJobsRequest};
use muster_tests::demo::{self, Scene};
use muster_tests::fakes::github::Conclusion;
use muster_tests::world::{Compute, Options, World, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rstest::rstest;

/// The demo's jobs are through in some four seconds; the moment is anywhere in them.
const SPAN: Duration = Duration::from_secs(4);
/// How long the coordinator is away, at most.
const AWAY: Duration = Duration::from_millis(1500);

#[rstest]
#[tokio::test]
async fn every_job_is_accounted_for(
    #[values(0, 1, 2, 3, 4)] tens: u64,
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)] ones: u64,
) {
    survive(Compute::Local, tens * 10 + ones).await;
}

#[rstest]
#[tokio::test]
async fn every_job_on_ec2_is_accounted_for(#[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)] run: u64) {
    survive(Compute::Ec2, run).await;
}

async fn survive(compute: Compute, number: u64) {
    let seed = std::env::var("MUSTER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0_u64);
    let run = seed.wrapping_mul(50) + number;
    let mut random = StdRng::seed_from_u64(run);
    let moment = SPAN.mul_f64(random.random());
    let away = AWAY.mul_f64(random.random());
    println!("run {run}: killed after {moment:?}, away for {away:?}");

    let world = World::start(Options {
        runner_speed: 20,
        ..demo::options(compute)
    })
    .await
    .unwrap();
    let kill = async {
        tokio::time::sleep(moment).await;
        world.coordinator.kill_nine();
        tokio::time::sleep(away).await;
        world.coordinator.start_again().await
    };
    let (scene, started) = tokio::join!(demo::play(&world), kill);
    let story = || world.coordinator.log_tail();
    started.unwrap_or_else(|error| panic!("{error:#}"));
    let scene = scene.unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    let explained = demo::explain_and_give_up(&world, &scene).await;
    explained.unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    let counted = all_accounted_for(&world, &scene).await;
    counted.unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    let left = world.wind_down(Duration::from_secs(60)).await;
    let left = left.unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    assert!(left.is_nothing(), "{left:#?}");
}

/// Waits until the coordinator says of each job what GitHub says.
async fn all_accounted_for(world: &World, scene: &Scene) -> anyhow::Result<()> {
    let mut operator = world.operator("counter").await?;
    wait_for("all jobs accounted for", Duration::from_secs(60), || {
        let mut client = operator.client.clone();
        async move {
            let jobs = client
                .list_jobs(ListJobsRequest::default())
                .await?
                .into_inner()
                .jobs;
            let agrees = scene.jobs().into_iter().all(|(_, id)| {
                let theirs = world.github.job(id).and_then(|job| job.conclusion);
                jobs.iter().any(|job| {
                    u64::try_from(job.id).is_ok_and(|ours| ours == id)
                        && job.state() == JobState::Completed
                        && Some(job.conclusion.as_str()) == theirs.map(Conclusion::as_str)
                })
            });
            Ok(agrees.then_some(()))
        }
    })
    .await?;
    operator.runners().await.map(drop)
}
