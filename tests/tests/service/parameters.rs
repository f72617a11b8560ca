//! Secrets in SSM, and secrets that are rotated while the coordinator runs.

use std::time::Duration;

use muster_tests::fakes::aws::ParameterKind;
use muster_tests::fakes::github::{Conclusion, JobSpec, Status, sign};
use muster_tests::world::{Compute, Options, World, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const UNAUTHORIZED: u16 = 401;
const SECRET: &str = "/muster/github/webhook-secret";

/// The status for a webhook that is of no interest, signed with this secret.
async fn knock(url: &str, secret: &str) -> anyhow::Result<u16> {
    let body = "{}";
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client
        .post(url)
        .header("content-type", "application/json")
        .header("x-github-event", "ping")
        .header("x-github-delivery", "12345678-1234-1234-1234-123456789012")
        .header("x-hub-signature-256", sign(secret, body.as_bytes()))
        .body(body)
        .send()
        .await?;
    Ok(answer.status().as_u16())
}

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
    // What is signed so is taken: seen at the door, as the log may be ahead of it or behind.
    let url = world.coordinator.webhook_url();
    let taken = async |secret: &str| {
        wait_for("the secret in use", PATIENCE, || async {
            Ok((knock(&url, secret).await? != UNAUTHORIZED).then_some(()))
        })
        .await
        .unwrap();
    };
    let other = "a secret that GitHub does not have yet";
    put(other);
    taken(other).await;
    assert_eq!(
        knock(&url, world.github.webhook_secret()).await.unwrap(),
        UNAUTHORIZED
    );
    put(world.github.webhook_secret());
    taken(world.github.webhook_secret()).await;
    assert_eq!(knock(&url, other).await.unwrap(), UNAUTHORIZED);
    run().await;

    let log = std::fs::read_to_string(world.coordinator.log()).unwrap();
    assert!(!log.contains(world.github.webhook_secret()));
    assert!(!log.contains("a secret that GitHub"));
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
