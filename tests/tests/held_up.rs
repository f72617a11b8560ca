//! What can't be done at the moment: it is tried again, and one call tells what holds it up.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::Duration;

use muster_proto::v1::ExplainJobRequest;
use muster_tests::fakes::aws;
use muster_tests::fakes::github::{Fault, JobSpec, Status};
use muster_tests::world::{Compute, Options, World, pool, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_that_github_holds_up_is_explained_and_runs_in_the_end() {
    let world = World::start(Options::default()).await.unwrap();
    // It is held up for five seconds: who asks must be ready.
    let operator = world.operator("oncall").await.unwrap();
    world
        .github
        .inject(Fault::status("generate-jitconfig", 1, 503));
    let job = world
        .github
        .queue_job(JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]).step("true"));
    let id = i64::try_from(job).unwrap();
    let next = wait_for("an explanation", PATIENCE, || {
        let mut client = operator.client.clone();
        async move {
            // Before its webhook has come, the job is not known.
            let Ok(answer) = client.explain_job(ExplainJobRequest { id }).await else {
                return Ok(None);
            };
            Ok(Some(answer.into_inner().next).filter(|next| next.contains("held up")))
        }
    })
    .await;
    let next = next.unwrap_or_else(|error| panic!("{error:#}\n{}", world.coordinator.log_tail()));
    assert!(
        next.contains("registration with GitHub") && next.contains("503"),
        "{next}"
    );
    world
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await
        .unwrap();
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}

/// A world on EC2 with one pool, which ends with what is given.
async fn on_ec2(rest: &str) -> World {
    let pools = pool("linux", &["self-hosted", "linux", "x64"], 0, 8) + rest;
    let options = Options {
        compute: Compute::Ec2,
        pools,
        max_instances: 8,
        ..Options::default()
    };
    World::start(options).await.unwrap()
}

fn job(name: &str, labels: &[&str]) -> JobSpec {
    let labels = [&["self-hosted", "linux"], labels].concat();
    JobSpec::new("octo-org/hello", name, &labels).step("true")
}

#[tokio::test]
async fn a_job_that_asks_for_what_ec2_never_has_stops_no_other() {
    let world = on_ec2("[pool.allow]\ncpu = [64]\n").await;
    let large = world.github.queue_job(job("large", &["muster/cpu=64"]));
    let operator = world.operator("oncall").await.unwrap();
    let id = i64::try_from(large).unwrap();
    let refused = wait_for("the refusal", PATIENCE, || {
        let mut client = operator.client.clone();
        async move {
            let Ok(answer) = client.explain_job(ExplainJobRequest { id }).await else {
                return Ok(None);
            };
            let pool = answer.into_inner().pools.into_iter().next();
            Ok(pool.filter(|pool| !pool.accepts))
        }
    });
    let refused = refused.await.unwrap();
    assert!(refused.reason.contains("muster/cpu=64"), "{refused:?}");
    let small = world.github.queue_job(job("small", &[]));
    world
        .github
        .wait_job(small, Status::Completed, PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn one_job_is_one_instance_however_long_ec2_is_away() {
    let world = on_ec2("[pool.limits]\nboot = \"2s\"\n").await;
    let aws = &world.cloud.as_ref().unwrap().aws;
    aws.inject(aws::Fault::times(
        "CreateFleet",
        u32::MAX,
        aws::Effect::HangUp,
    ));
    let queued = world.github.queue_job(job("build", &[]));
    // Longer than it may boot for.
    wait_for("calls", PATIENCE, || async {
        Ok((aws.calls_of("CreateFleet").len() >= 6).then_some(()))
    })
    .await
    .unwrap();
    aws.clear_faults();
    world
        .github
        .wait_job(queued, Status::Completed, PATIENCE)
        .await
        .unwrap();
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
