//! The real binaries among the fakes: a coordinator and its agents on loopback, a fake GitHub that
//! sends them webhooks, a fake metadata service, and the stand-in runner.

mod authority;
pub mod build;
mod cloud;
mod config;
mod coordinator;
mod leftovers;
mod operator;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tempfile::TempDir;

pub use self::authority::CaPair;
pub use self::cloud::{CA_CERTIFICATE, CA_KEY, Cloud};
pub use self::coordinator::{Addresses, Coordinator};
pub use self::leftovers::{Left, kill_all, marked_processes, processes_of};
pub use self::operator::{Operator, connect, wait_for};
use crate::fakes::github::{self, FakeGithub};
use crate::fakes::imds::FakeImds;
use crate::standin::install_runner;

/// The organisation that the pools serve.
pub const ORGANIZATION: &str = "octo-org";

/// Where instances live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// The coordinator starts them as processes of this machine.
    #[default]
    Local,
    /// In a fake EC2.
    Ec2,
}

/// What runs on the instances of the fake EC2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// On each an agent's process, with the stand-in runner.
    #[default]
    Agents,
    /// Nothing: whoever made the world speaks for them.
    Empty,
}

/// How the world is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where instances live.
    pub compute: Compute,
    /// What runs on those of the fake EC2.
    pub hosts: Hosts,
    /// Whether the fake EC2 enforces its request buckets.
    pub enforce_aws_limits: bool,
    /// Where the coordinator's secrets are: in files, or in parameters of the fake AWS. There the
    /// authority is given, too; else the coordinator makes one.
    pub secrets_in_ssm: bool,
    /// Further lines of `[identity]`, for those who have no such table in `tables`.
    pub identity: String,
    /// `[[pool]]` tables of the configuration.
    pub pools: String,
    /// How much faster than the real runner the stand-in is.
    pub runner_speed: u32,
    /// Most instances in all.
    pub max_instances: u32,
    /// Further keys of `[github]`, such as `reconcile_interval`.
    pub github_keys: String,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Time between two listings of an account's instances.
    pub sweep_interval: Duration,
    /// Most registrations in a minute.
    pub registrations_per_minute: u32,
    /// The coordinator's.
    pub log_level: &'static str,
    /// Further tables of the configuration, such as `[identity]`.
    pub tables: String,
    /// Where agents come in, if not on the loopback.
    pub agents_ip: Option<std::net::Ipv4Addr>,
    /// What is started in place of the agent.
    pub agent_binary: Option<PathBuf>,
    /// Changes to the fake GitHub.
    pub github: github::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compute: Compute::default(),
            hosts: Hosts::default(),
            enforce_aws_limits: true,
            secrets_in_ssm: false,
            identity: String::new(),
            pools: pool("linux", &["self-hosted", "linux", "x64"], 0, 4),
            runner_speed: 20,
            max_instances: 8,
            github_keys: String::new(),
            heartbeat_interval: Duration::from_millis(500),
            sweep_interval: Duration::from_millis(500),
            registrations_per_minute: 180,
            log_level: "debug",
            tables: String::new(),
            agents_ip: None,
            agent_binary: None,
            github: github::Options {
                organization: ORGANIZATION.to_owned(),
                offline_after: Duration::from_secs(5),
                poll_hold: Duration::from_millis(500),
                ..github::Options::default()
            },
        }
    }
}

/// A `[[pool]]` table.
#[must_use]
pub fn pool(name: &str, labels: &[&str], min_idle: u32, max: u32) -> String {
    format!(
        "[[pool]]\nname = \"{name}\"\nscope = {{ organization = \"{ORGANIZATION}\" }}\n\
         labels = {labels:?}\naccount = \"local\"\nmin_idle = {min_idle}\nmax = {max}\n\n"
    )
}

/// All of it. Ends everything that it started when dropped.
pub struct World {
    /// GitHub.
    pub github: FakeGithub,
    /// The instances' metadata.
    pub imds: Arc<FakeImds>,
    /// EC2, if instances live there.
    pub cloud: Option<Cloud>,
    /// The coordinator's process.
    pub coordinator: Coordinator,
    dir: TempDir,
}

impl World {
    /// Starts the fakes and the coordinator, and points GitHub's webhooks at it.
    ///
    /// # Errors
    /// When a binary is missing, or the coordinator doesn't come up.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("muster-").tempdir()?;
        let github = FakeGithub::start(options.github.clone()).await?;
        let imds = Arc::new(FakeImds::start().await?);
        let cloud = match options.compute {
            Compute::Local => None,
            Compute::Ec2 => {
                Some(Cloud::start(Arc::clone(&imds), options.enforce_aws_limits).await?)
            }
        };
        install_runner(&dir.path().join("runner"))?;
        let config = config::Config {
            dir: dir.path(),
            github: &github,
            metadata_endpoint: &imds.endpoint("{instance_id}"),
            options: &options,
            cloud: cloud.as_ref(),
        };
        let coordinator = Coordinator::start(&config).await?;
        if let Some(cloud) = cloud.as_ref().filter(|_| options.hosts == Hosts::Agents) {
            cloud.run_hosts(dir.path(), coordinator.addresses(), &options)?;
        }
        github.set_webhook_url(&coordinator.webhook_url());
        Ok(Self {
            github,
            imds,
            cloud,
            coordinator,
            dir,
        })
    }

    /// The folder of all hosts, whichever coordinator leads.
    fn instances_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data/instances")
    }

    /// The folder of this world.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file of the certificates that agents are to trust.
    #[must_use]
    pub fn authority(&self) -> std::path::PathBuf {
        let given = self.dir.path().join(cloud::TRUST_ANCHORS);
        if given.exists() {
            return given;
        }
        // The coordinator makes it at its first start.
        self.dir.path().join("data/ca.crt")
    }

    /// An operator with a certificate of its own, connected.
    ///
    /// # Errors
    /// When no certificate is issued or the listener can't be reached.
    pub async fn operator(&self, name: &str) -> anyhow::Result<Operator> {
        let out = self.dir.path().join(format!("operator-{name}"));
        if !out.exists() {
            self.coordinator.issue_operator_cert(name, &out).await?;
        }
        Operator::connect(self.coordinator.addresses().operators, &out).await
    }

    /// Spot takes an instance back after this time.
    pub fn interrupt(&self, instance: &str, within: Duration) {
        match &self.cloud {
            Some(cloud) => {
                cloud.aws.interrupt(instance, within);
            }
            None => self.imds.notice(instance, Timestamp::now() + within),
        }
    }

    /// Lets the fleet end: nothing is launched any more, every runner is terminated, and the
    /// coordinator is stopped. Then tells what is left, which should be nothing.
    ///
    /// # Errors
    /// When it doesn't come to that in time.
    pub async fn wind_down(&self, within: Duration) -> anyhow::Result<Left> {
        let mut operator = self.operator("closing").await?;
        operator
            .end_everything(within)
            .await
            .context("the fleet did not end")?;
        self.coordinator.stop(within).await?;
        let mut left = Left::look(&self.github, &self.instances_dir());
        if let Some(cloud) = &self.cloud {
            let alive = cloud.aws.alive().into_iter();
            left.instances = alive.map(|instance| instance.id).collect();
            left.violations.extend(cloud.aws.violations());
        }
        Ok(left)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.coordinator.kill_nine();
        leftovers::kill(&self.instances_dir());
    }
}
