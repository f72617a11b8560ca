//! What no webhook tells of, and what a host leaves behind: the coordinator as it ships, beside a GitHub
//! that keeps quiet and hosts that go.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what surprises a test's helper fails the test"
)]

mod reruns;
mod unheard;

use std::time::Duration;

use muster_proto::v1::{GetJobRequest, GetJobResponse};
use muster_tests::world::{Operator, World, wait_for};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(90);
const LINUX: [&str; 2] = ["self-hosted", "linux"];

/// Waits until the coordinator says what is wanted of a job.
async fn known(
    world: &World,
    operator: &Operator,
    id: u64,
    what: &str,
    wanted: impl Fn(&GetJobResponse) -> bool,
) -> GetJobResponse {
    let id = i64::try_from(id).unwrap();
    let answer = wait_for(what, PATIENCE, || {
        let mut client = operator.client.clone();
        let wanted = &wanted;
        async move {
            let Ok(answer) = client.get_job(GetJobRequest { id }).await else {
                return Ok(None);
            };
            Ok(Some(answer.into_inner()).filter(wanted))
        }
    });
    match answer.await {
        Ok(answer) => answer,
        Err(error) => panic!("{error:#}\n{}", world.coordinator.log_tail()),
    }
}

/// What is told of a job, in words.
fn told(job: &GetJobResponse) -> Vec<&str> {
    job.timeline
        .iter()
        .map(|entry| entry.what.as_str())
        .collect()
}
