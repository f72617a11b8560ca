//! A job on a booted host, from GitHub's webhook to the power-off, with the real binaries.
//!
//! Host and coordinator share a network namespace, so that the coordinator's loopback is the host's; they
//! share nothing else. The metadata service is on the other side of a cable, as on EC2.

use std::time::Duration;

use muster_tests::fakes::github::{Conclusion, JobSpec, Status};
use muster_tests::metadata_service::MetadataService;
use muster_tests::network::Namespace;
use muster_tests::world::{Options, World, build, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// What must be true in a job. The first that isn't fails its step, and so the job.
const TRUE_IN_A_JOB: [&str; 10] = [
    r#"test "$(id -un)" = runner"#,
    r#"test "$HOME" = /home/runner"#,
    r#"test "$(sudo -n id -u)" = 0"#,
    "grep -q 'NoNewPrivs:.0' /proc/self/status",
    // The runner itself has -500 and raises its steps, just after it has started them.
    r#"for _ in {1..250}; do test "$(cat /proc/$$/oom_score_adj)" != 500 || exit 0; sleep 0.02; done; exit 1"#,
    "grep -q '/system.slice/muster-runner.service' /proc/self/cgroup",
    "! env | grep -E '^(NOTIFY_SOCKET|WATCHDOG_|LISTEN_|CREDENTIALS_|AWS_|ACTIONS_RUNNER_INPUT_)'",
    "! timeout 1 bash -c ': >/dev/tcp/169.254.169.254/80'",
    "! cat /etc/muster/agent.json",
    // Left behind on purpose: the host goes away all the same.
    "setsid sleep infinity >/dev/null 2>&1 </dev/null &",
];

#[test]
fn a_job_runs_on_a_booted_host_that_powers_off_after_it() {
    let network = Namespace::new().unwrap();
    network
        .enter(|| {
            // Its threads and its processes are inside.
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(one_job(&network))
        })
        .unwrap();
}

async fn one_job(network: &Namespace) -> anyhow::Result<()> {
    let options = Options {
        agent_binary: Some(build::binary("test-instance")?),
        ..Options::default()
    };
    let world = World::start(options).await?;
    let imds: url::Url = world.imds.endpoint("").parse()?;
    let target = imds.socket_addrs(|| None)?[0];
    let _service = MetadataService::beside(network, target, Some(network))?;

    let mut job = JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]);
    for step in TRUE_IN_A_JOB {
        job = job.step(step);
    }
    let job = world.github.queue_job(job);
    let done = world
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await;
    let logs = || {
        let instances = world.coordinator.instances_dir();
        let logs = std::fs::read_dir(instances).into_iter().flatten().flatten();
        let logs = logs.filter_map(|i| std::fs::read_to_string(i.path().join("agent.log")).ok());
        let logs: Vec<_> = logs.collect();
        format!("{}\n{}", world.coordinator.log_tail(), logs.join("\n"))
    };
    let done = done.unwrap_or_else(|error| panic!("{error}\n{}", logs()));
    // Nobody is asked to end it: the host does so by itself, and the coordinator sees it gone.
    let operator = world.operator("looker").await?;
    let gone = wait_for("the host's end", PATIENCE, || {
        let mut operator = operator.clone();
        async move { Ok(operator.runners().await?.is_empty().then_some(())) }
    });
    gone.await
        .unwrap_or_else(|error| panic!("{error}\n{}", logs()));
    assert_eq!(done.conclusion, Some(Conclusion::Success), "{}", logs());
    let left = world.wind_down(PATIENCE).await?;
    assert!(left.is_nothing(), "{left:#?}\n{}", logs());
    Ok(())
}
