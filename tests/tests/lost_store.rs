//! The store is lost: the coordinator is killed, its database deleted, and it is started again. What matters is
//! rebuilt from EC2's tags, GitHub and the agents' hellos.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on fails"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use muster_proto::v1::{JobState, ListJobsRequest, RunnerState};
use muster_tests::fakes::github::{Conclusion, JobId, JobSpec, Status};
use muster_tests::world::{Compute, Options, World, pool, wait_for};
use rstest::rstest;

const PATIENCE: Duration = Duration::from_secs(60);
const LABELS: [&str; 2] = ["self-hosted", "linux"];

/// A job that goes on until it is let go.
struct Held {
    id: JobId,
    gate: PathBuf,
}

impl Held {
    async fn start(world: &World, name: &str) -> Self {
        let gate = world.dir().join(format!("{name}.gate"));
        let step = format!("until test -e {}; do sleep 0.1; done", gate.display());
        let spec = JobSpec::new("octo-org/hello", name, &LABELS).step(&step);
        let id = world.github.queue_job(spec);
        let started = world.github.wait_job(id, Status::InProgress, PATIENCE);
        started.await.unwrap();
        Self { id, gate }
    }

    fn let_go(&self) {
        fs::write(&self.gate, "").unwrap();
    }
}

fn delete_store(world: &World) {
    let data = world.dir().join("data");
    let files = fs::read_dir(data).unwrap().map(|file| file.unwrap().path());
    let of_store = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.starts_with("muster.db")
    };
    let deleted = files.filter(of_store).map(fs::remove_file);
    assert!(deleted.map(Result::unwrap).count() > 0, "there was a store");
}

/// The states of all runners that are not gone, sorted.
async fn states(world: &World) -> anyhow::Result<Vec<RunnerState>> {
    let mut operator = world.operator("looker").await?;
    let runners = operator.runners().await?;
    let mut states: Vec<RunnerState> = runners
        .iter()
        .map(muster_proto::v1::Runner::state)
        .collect();
    states.sort_unstable();
    Ok(states)
}

async fn reach(world: &World, what: &str, expected: &[RunnerState]) {
    let reached = wait_for(what, PATIENCE, || async {
        Ok((states(world).await? == expected).then_some(()))
    });
    if let Err(error) = reached.await {
        let states = states(world).await;
        panic!("{error:#}: {states:?}\n{}", world.coordinator.log_tail());
    }
}

/// Waits until the coordinator says of these jobs what GitHub says: that they ended with success.
async fn accounted_for(world: &World, jobs: &[JobId]) {
    let operator = world.operator("looker").await.unwrap();
    let counted = wait_for("all jobs are accounted for", PATIENCE, || {
        let mut client = operator.client.clone();
        async move {
            let listed = client.list_jobs(ListJobsRequest::default()).await?;
            let listed = listed.into_inner().jobs;
            let success = Conclusion::Success.as_str();
            let is_counted = |id: &JobId| {
                listed.iter().any(|job| {
                    u64::try_from(job.id).is_ok_and(|ours| ours == *id)
                        && job.state() == JobState::Completed
                        && job.conclusion == success
                        && !job.runner.is_empty()
                })
            };
            Ok(jobs.iter().all(is_counted).then_some(()))
        }
    });
    let counted = counted.await;
    counted.unwrap_or_else(|error| panic!("{error:#}\n{}", world.coordinator.log_tail()));
}

#[rstest]
#[case::ec2(Compute::Ec2)]
#[case::local(Compute::Local)]
#[tokio::test]
async fn running_jobs_go_on_queued_ones_are_served_and_nothing_is_left(#[case] compute: Compute) {
    let world = World::start(Options {
        compute,
        // A host is one too many when its runner has taken the job before the coordinator hears of either.
        pools: pool("linux", &LABELS, 1, 5) + "[pool.limits]\nidle = \"5s\"\n",
        github_keys: "reconcile_interval = \"1s\"".to_owned(),
        ..Options::default()
    })
    .await
    .unwrap();
    let (idle, busy) = (RunnerState::Idle, RunnerState::Busy);
    let ends_meanwhile = Held::start(&world, "ends-meanwhile").await;
    let goes_on = Held::start(&world, "goes-on").await;
    reach(&world, "two jobs and the floor", &[idle, busy, busy]).await;

    world.coordinator.kill_nine();
    delete_store(&world);
    // The floor takes this one, and nobody tells the coordinator.
    let on_the_floor = Held::start(&world, "on-the-floor").await;
    let queued = JobSpec::new("octo-org/hello", "queued", &LABELS).step("true");
    let queued = world.github.queue_job(queued);
    ends_meanwhile.let_go();
    let over = world
        .github
        .wait_job(ends_meanwhile.id, Status::Completed, PATIENCE);
    over.await.unwrap();
    world.coordinator.start_again().await.unwrap();

    let served = world.github.wait_job(queued, Status::Completed, PATIENCE);
    served.await.unwrap();
    reach(&world, "two jobs and a new floor", &[idle, busy, busy]).await;
    goes_on.let_go();
    on_the_floor.let_go();
    let jobs = [ends_meanwhile.id, goes_on.id, on_the_floor.id, queued];
    for job in jobs {
        let over = world.github.wait_job(job, Status::Completed, PATIENCE);
        over.await.unwrap();
    }
    accounted_for(&world, &jobs).await;
    reach(&world, "the floor", &[idle]).await;
    if let Some(cloud) = &world.cloud {
        let made = cloud.aws.instances().len();
        assert!(
            made <= 7,
            "{made} instances: four jobs, the floor, its next, and one too many"
        );
    }
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
