//! One job, end to end, with the real binaries.

use std::time::Duration;

use muster_tests::fakes::github::{Conclusion, JobSpec, Status};
use muster_tests::world::{Compute, Options, World};
use rstest::rstest;

#[rstest]
#[tokio::test]
async fn a_job_runs_on_an_instance_that_is_gone_afterwards(
    #[values(Compute::Local, Compute::Ec2)] compute: Compute,
) {
    let options = Options {
        compute,
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    let job = world.github.queue_job(
        JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]).step("echo built"),
    );
    let done = world
        .github
        .wait_job(job, Status::Completed, Duration::from_secs(60))
        .await;
    let done = done.unwrap_or_else(|error| panic!("{error}\n{}", world.coordinator.log_tail()));
    assert_eq!(done.conclusion, Some(Conclusion::Success));
    let left = world.wind_down(Duration::from_secs(30)).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
