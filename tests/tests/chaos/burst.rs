//! Many jobs at once, in real time and with nothing that goes wrong: how soon all their capacity is asked
//! for, and in how many calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use muster_tests::fakes::aws::{Bucket, Chaos};
use muster_tests::fakes::github::{Delivery, JobSpec, Mischief, WebhookFault, sign};
use tokio::time::Instant;

use crate::coordinator::Coordinator;
use crate::plant::{Odds, Plant};

/// Launches in one call, as the coordinator makes them at most.
const IN_ONE_CALL: usize = 500;
/// Webhooks under way at a time.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

const NOTHING_GOES_WRONG: Odds = Odds {
    aws: Chaos {
        seed: 0,
        throttle: 0.0,
        server_error: 0.0,
        lost_answer: 0.0,
        hang_up: 0.0,
        capacity: 0.0,
    },
    interrupted: 0.0,
    webhook: 0.0,
    github: 0.0,
};

/// The figures of a burst.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) jobs: usize,
    pub(crate) asked_for: u32,
    pub(crate) instances: usize,
    pub(crate) calls: usize,
    pub(crate) least_calls: usize,
    /// From the first webhook sent to the last one answered.
    intake: Duration,
    /// From the first webhook sent to the last call of CreateFleet that came.
    pub(crate) requested: Duration,
    bucket: Option<Bucket>,
    pub(crate) refused: u64,
    pub(crate) violations: Vec<String>,
}

/// Lets so many jobs come at once.
pub(crate) async fn burst(jobs: u32) -> Burst {
    let plant = Plant::build(0, jobs, NOTHING_GOES_WRONG).await;
    let webhooks = webhooks(&plant, jobs).await;
    let coordinator = Coordinator::start(&plant).await.unwrap();
    // What may be launched is known from the start in all but the first second of a coordinator.
    let ready = || (plant.aws.served("DescribeInstanceTypes") > 0).then_some(());
    plant
        .aws
        .wait_for("the catalog", PATIENCE, ready)
        .await
        .unwrap();

    let (began, began_at) = (Instant::now(), muster_coordinator::clock::now());
    post(&plant, &coordinator.webhooks, webhooks).await;
    let intake = began.elapsed();
    let all = || {
        let asked: u32 = plant.aws.fleets().iter().map(|fleet| fleet.target).sum();
        (asked >= jobs).then_some(asked)
    };
    let asked_for = plant
        .aws
        .wait_for("all capacity", PATIENCE, all)
        .await
        .unwrap();
    let calls = plant.aws.calls_of("CreateFleet");
    let last = calls
        .iter()
        .map(|call| call.at)
        .max()
        .unwrap_or(Timestamp::MIN);
    let home = plant.aws.home();
    let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
    let burst = Burst {
        jobs,
        asked_for,
        instances: plant.aws.alive().len(),
        calls: calls.len(),
        least_calls: jobs.div_ceil(IN_ONE_CALL),
        intake,
        requested: Duration::try_from(last.duration_since(began_at)).unwrap_or_default(),
        bucket: plant.aws.bucket(&home, "CreateFleet"),
        refused: plant.aws.throttled(),
        violations: [plant.aws.violations(), plant.github.violations()].concat(),
    };
    coordinator.kill(&plant).await;
    burst
}

/// The webhooks of so many jobs, as GitHub would send them.
async fn webhooks(plant: &Arc<Plant>, jobs: u32) -> Vec<Delivery> {
    plant.github.disturb_webhooks(WebhookFault {
        action: None,
        times: jobs,
        mischief: Mischief::Fail,
    });
    for number in 0..jobs {
        let labels = ["self-hosted", "linux", "x64"];
        let name = format!("job-{number}");
        plant
            .github
            .queue_job(JobSpec::new("acme/widgets", &name, &labels));
    }
    let most = usize::try_from(jobs).unwrap_or(usize::MAX);
    let all = || Some(plant.github.deliveries()).filter(|all| all.len() >= most);
    plant
        .github
        .wait_for("all webhooks", PATIENCE, all)
        .await
        .unwrap()
}

async fn post(plant: &Plant, url: &str, webhooks: Vec<Delivery>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let secret = plant.github.webhook_secret();
    let signed = webhooks.into_iter().map(|webhook| {
        let signature = sign(secret, webhook.body.as_bytes());
        client
            .post(url)
            .header("content-type", "application/json")
            .header("x-github-event", webhook.event)
            .header("x-github-delivery", webhook.guid)
            .header("x-hub-signature-256", signature)
            .body(webhook.body)
            .send()
    });
    let mut answers = futures::stream::iter(signed).buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        assert!(answer.unwrap().status().is_success());
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} jobs at once: all webhooks stored after {} ms, all capacity requested after {} ms",
            self.jobs,
            self.intake.as_millis(),
            self.requested.as_millis()
        )?;
        writeln!(
            f,
            "CreateFleet: {} calls for {} launches, {} instances; the least possible is {}",
            self.calls, self.asked_for, self.instances, self.least_calls
        )?;
        if let Some(bucket) = &self.bucket {
            writeln!(
                f,
                "its bucket of {} was never below {:.0}; calls that found a bucket empty: {}",
                bucket.largest, bucket.lowest, self.refused
            )?;
        }
        Ok(())
    }
}
