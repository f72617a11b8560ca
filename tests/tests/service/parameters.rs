//! Secrets in SSM, and secrets that are rotated while the coordinator runs.

use std::time::Duration;

use muster_tests::fakes::aws::ParameterKind;
use muster_tests::fakes::github::{Conclusion, JobSpec, Status};
use muster_tests::world::{Compute, Options, World, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "/muster/github/webhook-secret";

#[tokio::test]
async fn a_webhook_secret_that_is_rotated_in_ssm_is_used_without_a_restart() {
    let options = Options {
        compute: Compute::Ec2,
        secrets_in_ssm: true,
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    let run = async || {
        let labels = ["self-hosted", "linux"];
        let job = JobSpec::new("octo-org/hello", "build", &labels).step("echo built");
        let job = world.github.queue_job(job);
        let done = world
            .github
            .wait_job(job, Status::Completed, PATIENCE)
            .await;
        let done = done.unwrap_or_else(|error| panic!("{error}\n{}", world.coordinator.log_tail()));
        assert_eq!(done.conclusion, Some(Conclusion::Success));
    };
    run().await;

    let aws = &world.cloud.as_ref().unwrap().aws;
    let put = |secret: &str| {
        aws.put_parameter(&aws.home(), SECRET, ParameterKind::Secret, secret);
    };
    let taken_up = async |times: usize| {
        wait_for("the new secret in use", PATIENCE, || async {
            let log = std::fs::read_to_string(world.coordinator.log())?;
            let said = log.matches("new secrets are in use").count();
            Ok((said >= times).then_some(()))
        })
        .await
        .unwrap();
    };
    put("a secret that GitHub does not have yet");
    taken_up(1).await;
    let labels = ["self-hosted", "linux"];
    let job = JobSpec::new("octo-org/hello", "late", &labels).step("echo built");
    let job = world.github.queue_job(job);
    wait_for("a webhook that is refused", PATIENCE, || async {
        let log = std::fs::read_to_string(world.coordinator.log())?;
        Ok(log.contains("refused a webhook").then_some(()))
    })
    .await
    .unwrap();
    put(world.github.webhook_secret());
    taken_up(2).await;
    // What was refused is asked for again.
    let done = world
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await;
    assert_eq!(done.unwrap().conclusion, Some(Conclusion::Success));

    let log = std::fs::read_to_string(world.coordinator.log()).unwrap();
    assert!(!log.contains(world.github.webhook_secret()));
    assert!(!log.contains("a secret that GitHub"));
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
