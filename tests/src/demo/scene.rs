//! The jobs of the demo, and what becomes of each.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::PATIENCE;
use crate::fakes::github::{Conclusion, FakeGithub, JobId, JobSpec, JobView, Status};
use crate::world::{World, pool, wait_for};

/// How long before the end of the instance the notice comes. Agents stop a job 45 s before it, so
/// that this one runs for another second.
const NOTICE: Duration = Duration::from_secs(46);

const REPOSITORY: &str = "octo-org/hello";

/// The jobs.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Succeeds.
    pub build: JobId,
    /// Fails.
    pub lint: JobId,
    /// Is cancelled while it runs.
    pub deploy: JobId,
    /// Succeeds in the other pool.
    pub package: JobId,
    /// Is on an instance that Spot takes back.
    pub nightly: JobId,
    /// Asks for a label that no pool carries.
    pub train: JobId,
}

/// The pools: a small one with a runner in reserve, a big one without.
#[must_use]
pub fn pools() -> String {
    pool("linux", &["self-hosted", "linux", "x64"], 1, 4)
        + &pool("big", &["self-hosted", "linux", "x64", "big"], 0, 2)
}

impl Scene {
    pub(super) fn queue(github: &FakeGithub) -> Self {
        let linux = ["self-hosted", "linux"];
        let big = ["self-hosted", "linux", "big"];
        let job = |name, labels: &[&str]| JobSpec::new(REPOSITORY, name, labels);
        Self {
            build: github.queue_job(job("build", &linux).step("sleep 1; echo compiled")),
            lint: github.queue_job(job("lint", &linux).step("echo 'unused variable: x'; exit 1")),
            deploy: github.queue_job(job("deploy", &linux).step("sleep 300")),
            package: github.queue_job(job("package", &big).step("sleep 1")),
            nightly: github.queue_job(job("nightly", &big).step("sleep 300")),
            train: github.queue_job(job("train", &["self-hosted", "gpu"])),
        }
    }

    /// All jobs, with their names.
    #[must_use]
    pub fn jobs(&self) -> [(&'static str, JobId); 6] {
        [
            ("build", self.build),
            ("lint", self.lint),
            ("deploy", self.deploy),
            ("package", self.package),
            ("nightly", self.nightly),
            ("train", self.train),
        ]
    }

    pub(super) async fn cancel_the_deployment(&self, world: &World) -> anyhow::Result<()> {
        let github = &world.github;
        github
            .wait_job(self.deploy, Status::InProgress, PATIENCE)
            .await?;
        github.cancel_job(self.deploy);
        ended(world, self.deploy, "deploy", Conclusion::Cancelled).await
    }

    pub(super) async fn interrupt_the_nightly(&self, world: &World) -> anyhow::Result<()> {
        let running = world
            .github
            .wait_job(self.nightly, Status::InProgress, PATIENCE)
            .await?;
        let name = running
            .runner_name
            .context("GitHub names no runner for nightly")?;
        // The coordinator may be away at the moment, and may not know yet which instance that is.
        let instance = wait_for("the instance of nightly", PATIENCE, || async {
            let Ok(mut operator) = world.operator("demo").await else {
                return Ok(None);
            };
            let Ok(runners) = operator.runners().await else {
                return Ok(None);
            };
            let runner = runners.into_iter().find(|runner| runner.name == name);
            Ok(runner
                .map(|runner| runner.instance_id)
                .filter(|id| !id.is_empty()))
        })
        .await?;
        world.interrupt(&instance, NOTICE);
        ended(world, self.nightly, "nightly", Conclusion::Failure).await
    }

    pub(super) async fn wait_for_the_rest(&self, world: &World) -> anyhow::Result<()> {
        ended(world, self.build, "build", Conclusion::Success).await?;
        ended(world, self.lint, "lint", Conclusion::Failure).await?;
        ended(world, self.package, "package", Conclusion::Success).await
    }

    pub(super) async fn wait_for_the_rejected(&self, world: &World) -> anyhow::Result<()> {
        ended(world, self.train, "train", Conclusion::Cancelled).await
    }
}

async fn ended(world: &World, id: JobId, name: &str, expected: Conclusion) -> anyhow::Result<()> {
    let job: JobView = world
        .github
        .wait_job(id, Status::Completed, PATIENCE)
        .await
        .with_context(|| format!("{name}\n{}", world.coordinator.log_tail()))?;
    ensure!(
        job.conclusion == Some(expected),
        "{name} ended with {:?} and not with {expected:?}: {}",
        job.conclusion,
        job.annotation.unwrap_or_default()
    );
    Ok(())
}
