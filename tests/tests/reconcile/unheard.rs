//! Every webhook is lost.

use muster_proto::v1::{GetJobResponse, JobState, ListPoolsRequest, PausePoolRequest};
use muster_tests::fakes::github::{Conclusion, JobSpec, Mischief, Status, WebhookFault};
use muster_tests::world::{Options, World};

use super::{LINUX, PATIENCE, known, told};

fn drop_all_webhooks(world: &World) {
    world.github.disturb_webhooks(WebhookFault {
        action: None,
        times: u32::MAX,
        mischief: Mischief::Drop,
    });
}

async fn world(github_keys: &str) -> World {
    let options = Options {
        github_keys: github_keys.to_owned(),
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    drop_all_webhooks(&world);
    world
}

#[tokio::test]
async fn a_job_runs_though_every_webhook_was_dropped() {
    let world = world("").await;
    let operator = world.operator("oncall").await.unwrap();
    let spec = JobSpec::new("octo-org/hello", "build", &LINUX).step("true");
    let job = world.github.queue_job(spec);
    let done = world
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await;
    let done = done.unwrap_or_else(|error| panic!("{error}\n{}", world.coordinator.log_tail()));
    assert_eq!(done.conclusion, Some(Conclusion::Success));
    let completed = |job: &GetJobResponse| job.job.as_ref().unwrap().state() == JobState::Completed;
    let job = known(&world, &operator, job, "its end", completed).await;
    assert!(told(&job).contains(&"found"), "{:?}", told(&job));
    // What is promised: no timed assertion, as the machine of the test may be slow.
    let pools = operator
        .client
        .clone()
        .list_pools(ListPoolsRequest::default())
        .await;
    let surveys = pools.unwrap().into_inner().surveys;
    assert_eq!(surveys.len(), 1);
    assert_eq!(
        (surveys[0].owner.as_str(), surveys[0].repositories),
        ("octo-org", 1)
    );
    let bound = surveys[0].notice_within.unwrap();
    assert!(bound.seconds <= 15, "noticed within {bound:?}");
    let waited = done.started_at.unwrap().duration_since(done.created_at);
    println!(
        "without any webhook the job waited {:.1} s",
        waited.as_secs_f64()
    );
    assert!(world.github.deliveries().is_empty());
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}

#[tokio::test]
async fn what_happens_to_a_job_that_waits_is_noticed() {
    let world = world("reconcile_interval = \"1s\"").await;
    let operator = world.operator("oncall").await.unwrap();
    let pause = PausePoolRequest {
        name: "linux".into(),
        reason: "test".into(),
    };
    operator.client.clone().pause_pool(pause).await.unwrap();
    let queue = |name: &str| {
        world
            .github
            .queue_job(JobSpec::new("octo-org/hello", name, &LINUX))
    };
    let cancelled = queue("cancelled");
    queue("left");
    let is =
        |state: JobState| move |job: &GetJobResponse| job.job.as_ref().unwrap().state() == state;
    known(
        &world,
        &operator,
        cancelled,
        "it waits",
        is(JobState::Queued),
    )
    .await;
    assert!(world.github.cancel_job(cancelled));
    let job = known(
        &world,
        &operator,
        cancelled,
        "its end",
        is(JobState::Completed),
    )
    .await;
    assert_eq!(job.job.unwrap().conclusion, "cancelled");
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert_eq!(left.violations, [""; 0]);
}
