//! Jobs whose host goes in the middle of them run again: once, and on capacity that stays.

use std::time::Duration;

use muster_proto::v1::JobState;
use muster_tests::fakes::aws::Market;
use muster_tests::fakes::github::{Conclusion, Effect, Fault, JobId, JobSpec, JobView, Status};
use muster_tests::world::{Compute, Operator, Options, World, wait_for};

use super::{LINUX, PATIENCE, known, told};

const RERUN_JOB: &str = "POST /repos/{owner}/{repo}/actions/jobs/{job_id}/rerun";
const RERUN_FAILED: &str = "POST /repos/{owner}/{repo}/actions/runs/{run_id}/rerun-failed-jobs";

/// A world whose one pool runs interrupted jobs again.
async fn world() -> World {
    let mut options = Options {
        compute: Compute::Ec2,
        github_keys: "reconcile_interval = \"1s\"".to_owned(),
        ..Options::default()
    };
    // A runner renews it every three seconds.
    options.github.job_lock = Duration::from_secs(20);
    let policy = "rerun_interrupted = { attempts = 1, market = \"on-demand\" }\n";
    options.pools = options
        .pools
        .replace("account =", &format!("{policy}account ="));
    World::start(options).await.unwrap()
}

/// A job whose first attempt lasts until its host is gone.
fn job(name: &str) -> JobSpec {
    JobSpec::new("octo-org/hello", name, &LINUX)
        .step("test \"$GITHUB_RUN_ATTEMPT\" != 1 || sleep 600")
}

/// Waits until the coordinator knows that a job runs. GitHub knows it earlier: a host that is taken back in between has,
/// as far as the coordinator knows, a job that still waits, and another host is launched for it.
async fn started(world: &World, operator: &Operator, id: JobId) {
    known(world, operator, id, "the job runs", |job| {
        job.job.as_ref().unwrap().state() == JobState::InProgress
    })
    .await;
}

/// The job of this name in the second attempt, once it has ended.
async fn second_attempt(world: &World, name: &str) -> JobView {
    let found =
        world.github.wait_for(name, PATIENCE, || {
            world.github.jobs().into_iter().find(|job| {
                job.name == name && job.run_attempt == 2 && job.status == Status::Completed
            })
        });
    let story = || std::fs::read_to_string(world.coordinator.log()).unwrap_or_default();
    found
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", story()))
}

async fn ends_well(world: &World) {
    let attempts = world.github.jobs().iter().map(|job| job.run_attempt).max();
    assert_eq!(attempts, Some(2), "nothing ran a third time");
    let left = world.wind_down(PATIENCE).await;
    let left = left.unwrap_or_else(|error| panic!("{error:#}\n{}", world.coordinator.log_tail()));
    assert!(left.is_nothing(), "{left:#?}");
}

#[tokio::test]
async fn jobs_that_spot_took_run_again_together_on_demand_and_turn_green() {
    let world = world().await;
    let operator = world.operator("oncall").await.unwrap();
    let jobs = world.github.queue_run(vec![job("one"), job("two")]);
    for id in &jobs {
        started(&world, &operator, *id).await;
    }
    let aws = &world.cloud.as_ref().unwrap().aws;
    let alive = aws.alive();
    assert_eq!(alive.len(), 2);
    for instance in &alive {
        assert_eq!(instance.market, Market::Spot);
        world.interrupt(&instance.id, Duration::from_secs(20));
    }
    for id in &jobs {
        let failed = world
            .github
            .wait_job(*id, Status::Completed, PATIENCE)
            .await
            .unwrap();
        assert_eq!(failed.conclusion, Some(Conclusion::Failure));
    }
    for name in ["one", "two"] {
        let again = second_attempt(&world, name).await;
        assert_eq!(again.conclusion, Some(Conclusion::Success));
    }
    let later = aws.instances().into_iter();
    let later: Vec<_> = later
        .filter(|it| alive.iter().all(|old| old.id != it.id))
        .collect();
    assert!(!later.is_empty());
    assert!(
        later.iter().all(|it| it.market == Market::OnDemand),
        "{later:?}"
    );
    let served = (
        world.github.served(RERUN_FAILED),
        world.github.served(RERUN_JOB),
    );
    assert_eq!(served, (1, 0), "one call for both");
    let job = known(&world, &operator, jobs[0], "its record", |job| {
        job.job.as_ref().unwrap().rerun.contains("attempt 2")
    })
    .await;
    assert_eq!(
        job.job.as_ref().unwrap().interrupted,
        "EC2 took the Spot instance back"
    );
    assert!(told(&job).contains(&"interrupted"), "{:?}", told(&job));
    ends_well(&world).await;
}

/// Has Spot take the one host back that there is.
fn take_the_host_back(world: &World) {
    let alive = world.cloud.as_ref().unwrap().aws.alive();
    assert_eq!(alive.len(), 1, "one host has the job");
    world.interrupt(&alive[0].id, Duration::from_secs(20));
}

#[tokio::test]
async fn a_repetition_whose_answer_was_lost_is_not_asked_for_again() {
    let world = world().await;
    let operator = world.operator("oncall").await.unwrap();
    let id = world.github.queue_job(job("build"));
    started(&world, &operator, id).await;
    world
        .github
        .inject(Fault::new("/rerun", 1, Effect::LoseAnswer));
    take_the_host_back(&world);
    let again = second_attempt(&world, "build").await;
    assert_eq!(again.conclusion, Some(Conclusion::Success));
    assert_eq!(world.github.served(RERUN_JOB), 1);
    known(&world, &operator, id, "its record", |job| {
        job.job.as_ref().unwrap().rerun == "runs again in attempt 2"
    })
    .await;
    assert_eq!(world.github.served(RERUN_JOB), 1);
    ends_well(&world).await;
}

#[tokio::test]
async fn a_coordinator_killed_between_intent_and_call_makes_the_call_once() {
    let world = world().await;
    let operator = world.operator("oncall").await.unwrap();
    let id = world.github.queue_job(job("build"));
    started(&world, &operator, id).await;
    // The call fails, and is not made again for five seconds.
    world.github.inject(Fault::status("/rerun", 1, 503));
    take_the_host_back(&world);
    wait_for("the intent, and a call that fails", PATIENCE, || async {
        Ok((world.github.faults_left() == 0).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", world.coordinator.log_tail()));
    world.coordinator.kill_nine();
    assert_eq!(world.github.served(RERUN_JOB), 0);
    world.coordinator.start_again().await.unwrap();
    let again = second_attempt(&world, "build").await;
    assert_eq!(again.conclusion, Some(Conclusion::Success));
    assert_eq!(world.github.served(RERUN_JOB), 1);
    ends_well(&world).await;
}
