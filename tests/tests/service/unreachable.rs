//! The coordinator where AWS can't be reached: it starts, says so plainly, and goes on once it can.

use std::process::Stdio;
use std::time::Duration;

use muster_proto::v1::ListPoolsRequest;
use muster_tests::fakes::aws::{Effect, Fault};
use muster_tests::fakes::github::{Conclusion, JobSpec, Status};
use muster_tests::world::{Compute, Options, World, build, wait_for};
use serde_json::Value;
use tokio::net::TcpSocket;

const PATIENCE: Duration = Duration::from_secs(60);

async fn world(secrets_in_ssm: bool) -> World {
    let options = Options {
        compute: Compute::Ec2,
        secrets_in_ssm,
        ..Options::default()
    };
    World::start(options).await.unwrap()
}

/// The first line of its log that has this message.
async fn line(world: &World, message: &str) -> Value {
    wait_for(message, PATIENCE, || async {
        let log = std::fs::read_to_string(world.coordinator.log())?;
        let mut lines = log.lines().map(serde_json::from_str::<Value>);
        let found = lines.find_map(|line| line.ok().filter(|line| line["message"] == message));
        Ok(found)
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.coordinator.log_tail()))
}

async fn status(world: &World, path: &str) -> u16 {
    asked(world, path).await.status().as_u16()
}

async fn asked(world: &World, path: &str) -> reqwest::Response {
    let url = format!("http://{}{path}", world.coordinator.addresses().web);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).send().await.unwrap()
}

/// Holds the port of a fake that was stopped, so that nobody listens there.
fn nobody_at(url: &str) -> TcpSocket {
    let address = url.trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

#[tokio::test]
async fn what_of_aws_can_not_be_reached_is_said_once_and_with_what_follows() {
    let world = world(false).await;
    let reached = line(&world, "AWS can be reached").await;
    assert_eq!(reached["answering"], "STS, EC2, SQS");
    world.coordinator.kill_nine();
    let aws = &world.cloud.as_ref().unwrap().aws;
    aws.stop().await;
    let _nobody = nobody_at(&aws.url);
    std::fs::write(world.coordinator.log(), "").unwrap();
    world.coordinator.start_again().await.unwrap();

    let message = "not all of AWS can be reached; the coordinator goes on and keeps trying";
    let told = line(&world, message).await;
    assert_eq!(
        (&told["level"], &told["account"]),
        (&"WARN".into(), &"main".into())
    );
    let lacking = told["lacking"].as_str().unwrap();
    for part in [
        "STS: GetCallerIdentity: ",
        "instances can't enrol",
        "EC2: DescribeSubnets: ",
        "pools linux launch nothing",
        "SQS: ",
        "muster-events",
        &format!("{} can't be reached", aws.url),
    ] {
        assert!(lacking.contains(part), "{part:?} is not in {lacking}");
    }
    let events = line(&world, "EC2's events can't be read").await;
    let error = events["error"].as_str().unwrap();
    let queue = aws.queue_url(&aws.home());
    assert!(
        error.contains(&format!("queue {queue} in {}", aws.home().region)),
        "{error}"
    );

    let labels = ["self-hosted", "linux"];
    world
        .github
        .queue_job(JobSpec::new("octo-org/hello", "build", &labels).step("echo built"));
    let operator = world.operator("alice").await.unwrap();
    let cause = &format!("{} can't be reached", aws.url);
    let limited = wait_for("a pool that says why it is limited", PATIENCE, || {
        let mut client = operator.client.clone();
        async move {
            let pools = client.list_pools(ListPoolsRequest::default()).await?;
            let limited = pools.into_inner().pools.remove(0).limited_by;
            Ok(limited.contains(cause).then_some(limited))
        }
    });
    let limited = limited.await.unwrap();
    let listed_first = "the instances of account main have not been listed yet: ";
    assert!(limited.starts_with(listed_first), "{limited}");
    let figures = asked(&world, "/metrics").await.text().await.unwrap();
    let series =
        "muster_aws_calls_total{call=\"DescribeSubnets\",outcome=\"unanswered\",service=\"ec2\"} ";
    let count = figures.lines().find_map(|line| line.strip_prefix(series));
    assert!(count.unwrap().parse::<u64>().unwrap() > 0, "{figures}");
}

#[tokio::test]
async fn that_there_are_no_credentials_is_said_in_these_words_and_no_others() {
    let world = world(false).await;
    world.coordinator.stop(PATIENCE).await.unwrap();
    std::fs::write(world.coordinator.log(), "").unwrap();
    let log = std::fs::OpenOptions::new()
        .append(true)
        .open(world.coordinator.log())
        .unwrap();
    let mut command = build::mortal(build::binary("muster-coordinator").unwrap());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        command.env(name, world.dir().join("none"));
    }
    let _alone = command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .current_dir(world.dir())
        .args(["run", "--config", "muster.toml"])
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let told = line(
        &world,
        "not all of AWS can be reached; the coordinator goes on and keeps trying",
    )
    .await;
    let lacking = told["lacking"].as_str().unwrap();
    for part in [
        "STS: GetCallerIdentity: no AWS credentials found: not in the environment",
        "EC2: DescribeSubnets: no AWS credentials found: not in the environment",
    ] {
        assert!(lacking.contains(part), "{part:?} is not in {lacking}");
    }
    let log = std::fs::read_to_string(world.coordinator.log()).unwrap();
    assert!(!log.contains("aws_config::meta"), "{log}");
}

#[tokio::test]
async fn a_coordinator_that_waits_for_its_secrets_lives() {
    let world = world(true).await;
    world.coordinator.kill_nine();
    let aws = &world.cloud.as_ref().unwrap().aws;
    aws.inject(Fault::times("GetParameters", u32::MAX, Effect::HangUp));
    world.coordinator.start_slowly().await.unwrap();
    let waits = line(&world, "the coordinator waits for a secret").await;
    let error = waits["error"].as_str().unwrap();
    assert!(
        error.contains(&format!("{} can't be reached", aws.url)),
        "{error}"
    );
    assert_eq!(status(&world, "/livez").await, 200);
    assert_eq!(status(&world, "/readyz").await, 503);

    aws.clear_faults();
    world.coordinator.is_up(PATIENCE).await.unwrap();
    assert_eq!(status(&world, "/readyz").await, 200);
    let labels = ["self-hosted", "linux"];
    let job = JobSpec::new("octo-org/hello", "build", &labels).step("echo built");
    let job = world.github.queue_job(job);
    let done = world.github.wait_job(job, Status::Completed, PATIENCE);
    assert_eq!(done.await.unwrap().conclusion, Some(Conclusion::Success));
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
