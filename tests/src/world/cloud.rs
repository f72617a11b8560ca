//! The hosts behind the fake AWS: each instance that runs is an agent process on this machine, which
//! knows what an image would have told it and nothing of its launch.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Addresses, CaPair, Options, build, kill_all, leftovers};
use crate::fakes::aws::{self, FakeAws, Life};
use crate::fakes::github::FakeGithub;
use crate::fakes::imds::FakeImds;
use crate::standin::install_runner;

/// From the launch to the agent's start: a fast boot, for those who watch.
const BOOT: Duration = Duration::from_millis(300);
/// What an image says of the longest life.
const LIFETIME_SECS: u32 = 3_600;

/// Where the secrets are, if in SSM.
pub(super) const PARAMETERS: &str = "private_key_parameter = \"/muster/github/private-key\"\n\
    webhook_secret_parameters = [\"/muster/github/webhook-secret\"]";

/// Parameter of the authority's certificates.
pub const CA_CERTIFICATE: &str = "/muster/ca/certificate";
/// Parameter of the authority's key.
pub const CA_KEY: &str = "/muster/ca/key";
/// Where the authority is, if in SSM.
pub(super) const CA_PARAMETERS: &str = "ca_certificate_parameter = \"/muster/ca/certificate\"\n\
    ca_key_parameter = \"/muster/ca/key\"";
/// What an image trusts, if the authority is in SSM: a file beside the configuration.
pub(super) const TRUST_ANCHORS: &str = "anchors.pem";

/// EC2, and the hosts in it. Ends all when dropped.
pub struct Cloud {
    /// The fake.
    pub aws: Arc<FakeAws>,
    /// The authority that the coordinator is given at first, if its secrets are in SSM.
    pub authority: CaPair,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What is baked into the image of all hosts.
#[derive(Clone, Debug)]
struct Baked {
    instances_dir: PathBuf,
    /// The file of the certificates to trust; an image is built anew when it changes.
    authority: PathBuf,
    addresses: Addresses,
    agent_binary: PathBuf,
    runner_speed: u32,
}

impl Cloud {
    /// Starts the fake; hosts start once there is a coordinator for them.
    pub(super) async fn start(imds: Arc<FakeImds>, enforce_limits: bool) -> anyhow::Result<Self> {
        let options = aws::Options {
            imds: Some(imds),
            enforce_limits,
            addresses: aws::Addresses::Fixed(std::net::Ipv4Addr::LOCALHOST),
            stages: aws::Stages {
                pending: BOOT,
                ..aws::Stages::default()
            },
            ..aws::Options::default()
        };
        Ok(Self {
            aws: Arc::new(FakeAws::start(options).await?),
            authority: CaPair::new("the first authority")?,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// `[accounts.main]` of the configuration.
    pub(super) fn account(&self, max_instances: u32, sweep_interval: Duration) -> String {
        let sweep_interval = sweep_interval.as_millis();
        let home = self.aws.home();
        format!(
            "[accounts.main]\nmax_instances = {max_instances}\naws_account_id = \"{}\"\n\
             region = \"{}\"\nendpoint_url = \"{}\"\nevent_queue_url = \"{}\"\n\
             sweep_interval = \"{sweep_interval}ms\"\ncheck_private_ip = true\n",
            home.account,
            home.region,
            self.aws.url,
            self.aws.queue_url(&home)
        )
    }

    /// Puts the secrets into SSM and what images trust into a file, and gives `[secrets]` of the configuration.
    pub(super) fn put_secrets(&self, github: &FakeGithub, dir: &Path) -> anyhow::Result<String> {
        let home = self.aws.home();
        let put = |name: &str, secret: &str| {
            self.aws
                .put_parameter(&home, name, aws::ParameterKind::Secret, secret);
        };
        put("/muster/github/private-key", &github.app_private_key_pem);
        put("/muster/github/webhook-secret", github.webhook_secret());
        put(CA_CERTIFICATE, &self.authority.certificate);
        put(CA_KEY, &self.authority.key);
        trust(dir, &self.authority.certificate)?;
        Ok(format!(
            "[secrets]\nregion = \"{}\"\nendpoint_url = \"{}\"\nreload_interval = \"100ms\"\n",
            home.region, self.aws.url
        ))
    }

    /// Builds images that trust these certificates, where the authority is in SSM.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn build_images(&self, dir: &Path, certificates: &str) -> anyhow::Result<()> {
        trust(dir, certificates)
    }

    /// Pools of the local account, moved here.
    pub(super) fn pools(&self, local: &str) -> String {
        let home = self.aws.home();
        let subnets = self.aws.subnets(&home).into_iter();
        let subnets: Vec<String> = subnets.map(|subnet| subnet.id).collect();
        let ec2 = format!(
            "account = \"main\"\nec2 = {{ launch_template = \"muster\", subnets = {subnets:?}, \
             types = [\"m7i.large\", \"c7i.large\", \"m6i.large\"] }}"
        );
        local.replace("account = \"local\"", &ec2)
    }

    /// Starts an agent on each instance that runs from here on, and ends what runs on those that end.
    pub(super) fn run_hosts(
        &self,
        dir: &Path,
        addresses: Addresses,
        options: &Options,
    ) -> anyhow::Result<()> {
        let baked = Baked {
            instances_dir: dir.join("data/instances"),
            authority: if options.secrets_in_ssm {
                dir.join(TRUST_ANCHORS)
            } else {
                // The coordinator makes it at its first start.
                dir.join("data/ca.crt")
            },
            addresses,
            agent_binary: build::binary("muster-agent")?,
            runner_speed: options.runner_speed,
        };
        let (aws, stop) = (Arc::clone(&self.aws), self.stop.clone());
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            let mut lives = aws.lives();
            while let Some(Some(life)) = stop.run_until_cancelled(lives.next()).await {
                match life {
                    Life::Running(instance) => {
                        let host = host(baked.clone(), Arc::clone(&aws), instance.id);
                        let stop = stop.clone();
                        tasks.spawn(async move { stop.run_until_cancelled(host).await });
                    }
                    Life::Ending(instance) | Life::Ended(instance) => {
                        kill_all(leftovers::processes_of(&[instance.id]));
                    }
                    Life::Launched(_) => {}
                }
            }
        });
        Ok(())
    }
}

fn trust(dir: &Path, certificates: &str) -> anyhow::Result<()> {
    Ok(std::fs::write(dir.join(TRUST_ANCHORS), certificates)?)
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The life of one host, from the agent's start to the power switch.
async fn host(baked: Baked, aws: Arc<FakeAws>, instance: String) {
    if let Err(error) = run_agent(&baked, &aws, &instance).await {
        let log = baked.instances_dir.join(&instance).join("host.log");
        // Whoever looks for the reason finds the folder of the instance.
        let _ = std::fs::write(log, format!("{error:#}\n"));
    }
    kill_all(leftovers::processes_of(std::slice::from_ref(&instance)));
    aws.power_off(&instance);
}

async fn run_agent(baked: &Baked, aws: &FakeAws, instance: &str) -> anyhow::Result<()> {
    let folder = baked.instances_dir.join(instance);
    std::fs::create_dir_all(&folder)?;
    install_runner(&folder.join("runner"))?;
    let imds = aws.options().imds.as_ref().context("no metadata service")?;
    let config = json!({
        "enroll_url": format!("https://{}", baked.addresses.enroll),
        "agents_url": format!("https://{}", baked.addresses.agents),
        "server_name": "localhost",
        "trust_anchors_pem": std::fs::read_to_string(&baked.authority)?,
        "attestation": "aws-sts",
        "metadata_endpoint": imds.endpoint(instance),
        "runner_dir": folder.join("runner"),
        "work_dir": folder,
        "max_lifetime_seconds": LIFETIME_SECS,
        "runner_environment": { "FAKE_RUNNER_SPEED": baked.runner_speed.to_string() },
    });
    let log = std::fs::File::create(folder.join("agent.log"))?;
    let mut agent = build::mortal(&baked.agent_binary)
        .args(["run", "--config", "-"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &folder)
        .env("MUSTER_INSTANCE_ID", instance)
        .current_dir(&folder)
        .stdin(std::process::Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("start the agent")?;
    if let Some(mut stdin) = agent.stdin.take() {
        stdin.write_all(config.to_string().as_bytes()).await?;
    }
    agent.wait().await?;
    Ok(())
}
