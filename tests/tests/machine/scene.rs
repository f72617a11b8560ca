//! A machine that a coordinator has launched at EC2, and all that is around it.

use std::time::Duration;

use anyhow::Context as _;
use muster_proto::v1::{GetRunnerRequest, GetRunnerResponse};
use muster_tests::fakes::aws::Life;
use muster_tests::fakes::github::{self, JobSpec, JobView, Status};
use muster_tests::test_host::Boot;
use muster_tests::test_host::machine::Machine;
use muster_tests::world::{Compute, Hosts, ORGANIZATION, Options, World};
use serde_json::json;

/// For each wait. A boot takes half a minute, and three times as long on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// How the stand-in runner's own waits pass.
const SPEED: u32 = 20;

/// After the end of the job and of its machine.
pub(crate) struct Ended {
    pub(crate) job: JobView,
    /// What the coordinator knows.
    pub(crate) runner: GetRunnerResponse,
    /// The machine's journal and the words of its kernel.
    pub(crate) log: String,
}

/// Has a job run on a machine that is launched for it, until the machine is off.
pub(crate) async fn play(job: JobSpec) -> Ended {
    let options = Options {
        compute: Compute::Ec2,
        // As in production: a slow machine is silent for seconds.
        heartbeat_interval: Duration::from_secs(5),
        hosts: Hosts::Empty,
        github: github::Options {
            organization: ORGANIZATION.to_owned(),
            ..github::Options::default()
        },
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    let aws = &world.cloud.as_ref().unwrap().aws;
    let mut lives = aws.lives();
    let job = world.github.queue_job(job);
    let instance = loop {
        let life = tokio::time::timeout(PATIENCE, lives.next()).await;
        if let Life::Running(instance) = life.unwrap().unwrap() {
            break instance.id;
        }
    };
    let mut machine = image(&world, &instance).unwrap().power_on().await.unwrap();
    let said = |machine: &Machine| format!("{}\n{}", world.coordinator.log_tail(), machine.log());
    let done = tokio::select! {
        done = world.github.wait_job(job, Status::Completed, PATIENCE) => done,
        off = machine.off(PATIENCE) => {
            // Whoever is off has done its job.
            off.unwrap_or_else(|error| panic!("{error}\n{}", said(&machine)));
            world.github.wait_job(job, Status::Completed, Duration::ZERO).await
        }
    };
    let job = done.unwrap_or_else(|error| panic!("{error}\n{}", said(&machine)));
    // The coordinator has asked EC2 for its end by now, which is slow here: it never presses the button.
    let off = machine.off(PATIENCE).await;
    off.unwrap_or_else(|error| panic!("{error}\n{}", world.coordinator.log_tail()));
    aws.power_off(&instance);

    let mut operator = world.operator("looker").await.unwrap();
    let name = GetRunnerRequest { name: instance };
    let runner = operator.client.get_runner(name).await.unwrap();
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
    Ended {
        job,
        runner: runner.into_inner(),
        log: machine.log(),
    }
}

impl Ended {
    /// What the timeline says of this kind, first of all.
    pub(crate) fn told(&self, what: &str) -> &str {
        let entry = self.runner.timeline.iter().find(|it| it.what == what);
        let entry = entry.unwrap_or_else(|| panic!("not told: {what}\n{self}"));
        &entry.detail
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for entry in &self.runner.timeline {
            writeln!(f, "{}: {}", entry.what, entry.detail)?;
        }
        f.write_str(&self.log)
    }
}

/// The host as an image has it, with what it is told of its coordinator.
fn image(world: &World, instance: &str) -> anyhow::Result<Boot> {
    let addresses = world.coordinator.addresses();
    // The service at its real address; its port and path are the fake's.
    let metadata = world
        .imds
        .endpoint(instance)
        .replace("127.0.0.1", "169.254.169.254");
    let authority = std::fs::read_to_string(world.dir().join("data/ca.crt"));
    let agent = json!({
        "enroll_url": format!("https://{}", addresses.enroll),
        "agents_url": format!("https://{}", addresses.agents),
        "server_name": "localhost",
        "trust_anchors_pem": authority.context("the coordinator's authority")?,
        "attestation": "aws-sts",
        "metadata_endpoint": metadata,
        "supervisor_socket": "/run/muster/supervisor.sock",
    });
    let supervisor = json!({
        "runner_dir": "/opt/actions-runner",
        "max_lifetime_seconds": 3_600,
        "runner_environment": {
            "FAKE_RUNNER_SPEED": SPEED.to_string(),
            "METADATA": metadata,
        },
    });
    Ok(Boot::default()
        .secret("/etc/muster/agent.json", "muster-agent", &agent.to_string())
        .file("/etc/muster/supervisor.json", &supervisor.to_string()))
}
