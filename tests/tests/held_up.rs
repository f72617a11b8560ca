//! What can't be done at the moment: it is tried again, and one call tells what holds it up.

use std::time::Duration;

use muster_proto::v1::ExplainJobRequest;
use muster_tests::fakes::github::{Fault, JobSpec, Status};
use muster_tests::world::{Options, World, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_that_github_holds_up_is_explained_and_runs_in_the_end() {
    let world = World::start(Options::default()).await.unwrap();
    world
        .github
        .inject(Fault::status("generate-jitconfig", 1, 503));
    let job = world
        .github
        .queue_job(JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]).step("true"));
    let id = i64::try_from(job).unwrap();
    let operator = world.operator("oncall").await.unwrap();
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
