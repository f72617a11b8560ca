//! Hosts that die in the middle of their work.

use std::time::Duration;

use muster_proto::v1::{GetJobRequest, JobState};
use muster_tests::fakes::github::{Conclusion, JobSpec, Status};
use muster_tests::world::{Options, World, marked_processes, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_agent_that_is_killed_takes_its_instance_with_it_and_is_replaced() {
    let mut options = Options::default();
    // A runner renews it every three seconds.
    options.github.job_lock = Duration::from_secs(15);
    let world = World::start(options).await.unwrap();
    let linux = ["self-hosted", "linux"];
    let doomed = world
        .github
        .queue_job(JobSpec::new("octo-org/hello", "doomed", &linux).step("sleep 600"));
    // GitHub knows earlier that it runs: to a coordinator that doesn't, it would wait for another host.
    let operator = world.operator("oncall").await.unwrap();
    let id = i64::try_from(doomed).unwrap();
    wait_for("the job runs", PATIENCE, || {
        let mut client = operator.client.clone();
        async move {
            let Ok(answer) = client.get_job(GetJobRequest { id }).await else {
                return Ok(None);
            };
            let job = answer.into_inner().job.unwrap_or_default();
            Ok((job.state() == JobState::InProgress).then_some(()))
        }
    })
    .await
    .unwrap();

    let instances = world.coordinator.instances_dir();
    let agents: Vec<i32> = marked_processes(&instances)
        .into_iter()
        .filter(|(_, line)| line.contains("muster-agent"))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(agents.len(), 1, "one agent has the job");
    kill(Pid::from_raw(agents[0]), Signal::SIGKILL).unwrap();

    // The runner and its steps have lost their parent; they are of the instance all the same.
    let story = || world.coordinator.log_tail();
    wait_for("the end of all processes", PATIENCE, || async {
        Ok(marked_processes(&instances).is_empty().then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    let lost = world
        .github
        .wait_job(doomed, Status::Completed, PATIENCE)
        .await
        .unwrap();
    assert_eq!(lost.conclusion, Some(Conclusion::Failure));

    let next = world
        .github
        .queue_job(JobSpec::new("octo-org/hello", "next", &linux).step("true"));
    let done = world
        .github
        .wait_job(next, Status::Completed, PATIENCE)
        .await;
    let done = done.unwrap_or_else(|error| panic!("{error}\n{}", story()));
    assert_eq!(done.conclusion, Some(Conclusion::Success));
    let left = world
        .wind_down(PATIENCE)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", story()));
    assert_eq!(left.processes, []);
    assert_eq!(left.violations, [""; 0]);
}
