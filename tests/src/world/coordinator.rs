//! The coordinator's process: configured, started, killed and started again.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::build;
use super::config::{Config, write_config};

/// How long it may take to come up.
const START: Duration = Duration::from_secs(30);
/// Time between two looks at a file.
const LOOK: Duration = Duration::from_millis(10);

/// Where the coordinator listens.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Addresses {
    /// Webhooks, health, metrics.
    pub web: SocketAddr,
    /// Enrolment.
    pub enroll: SocketAddr,
    /// Agents.
    pub agents: SocketAddr,
    /// Operators.
    pub operators: SocketAddr,
}

/// A coordinator.
#[derive(Debug)]
pub struct Coordinator {
    dir: PathBuf,
    addresses: Addresses,
    /// Keep its ports from other tests, also while it is dead.
    ports: Vec<File>,
    /// What it finds in its environment beside the test's.
    environment: Vec<(&'static str, String)>,
    /// Taken out for an instant only, never across a wait.
    process: Mutex<Option<Child>>,
    /// Killed, and perhaps not dead yet.
    killed: Mutex<Option<Child>>,
}

impl Coordinator {
    pub(super) async fn start(config: &Config<'_>) -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            let (mut addresses, ports) = free_addresses()?;
            if let Some(ip) = config.options.agents_ip {
                addresses.agents.set_ip(ip.into());
            }
            write_config(config, &addresses)?;
            let dir = config.dir.to_owned();
            let coordinator = Self {
                dir,
                addresses,
                ports,
                environment: config
                    .cloud
                    .map(|cloud| cloud.aws.environment())
                    .unwrap_or_default(),
                process: Mutex::default(),
                killed: Mutex::default(),
            };
            match coordinator.start_again().await {
                Ok(()) => return Ok(coordinator),
                // Somebody else may have taken a port in between.
                Err(_) if tries < 3 => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts another coordinator with the same configuration, for one that keeps its state in PostgreSQL. It
    /// has a web listener of its own; the other addresses are the same, as behind a load balancer, and it opens
    /// them once it leads.
    ///
    /// # Errors
    /// When it doesn't start.
    pub async fn replica(&self) -> anyhow::Result<Self> {
        self.replica_with(|config| config).await
    }

    /// Starts another as [`Coordinator::replica`] does, whose configuration differs.
    ///
    /// # Errors
    /// When it doesn't start.
    pub async fn replica_with(
        &self,
        change: impl FnOnce(String) -> String,
    ) -> anyhow::Result<Self> {
        let (Addresses { web, .. }, mut ports) = free_addresses()?;
        let dir = self.dir.join("replica");
        std::fs::create_dir(&dir)?;
        let config = std::fs::read_to_string(self.config())?;
        let ours = |web| format!("web = \"{web}\"");
        let config = change(config.replace(&ours(self.addresses.web), &ours(web)));
        std::fs::write(dir.join("muster.toml"), config)?;
        for port in &self.ports {
            ports.push(port.try_clone()?);
        }
        let replica = Self {
            dir,
            addresses: Addresses {
                web,
                ..self.addresses
            },
            ports,
            environment: self.environment.clone(),
            process: Mutex::default(),
            killed: Mutex::default(),
        };
        replica.start_slowly().await?;
        Ok(replica)
    }

    /// Starts it with the same configuration and the same data.
    ///
    /// # Errors
    /// When it ends or doesn't come up in time; the message has the end of its log.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        self.start_slowly().await?;
        self.is_up(START).await
    }

    /// Starts it as [`Coordinator::start_again`] does, and does not wait until it is up.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start_slowly(&self) -> anyhow::Result<()> {
        let killed = lock(&self.killed).take();
        if let Some(mut killed) = killed {
            // It holds its database until it is dead.
            tokio::time::timeout(START, killed.wait()).await??;
        }
        let ports = self.dir.join("ports.json");
        if ports.exists() {
            std::fs::remove_file(&ports)?;
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let figures = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.emf())?;
        let process = build::mortal(build::binary("muster-coordinator")?)
            // As an operator would, from beside the file: what is relative in it must stay right.
            .current_dir(&self.dir)
            .args(["run", "--config", "muster.toml"])
            .envs(self.environment.iter().cloned())
            .stdin(std::process::Stdio::null())
            .stdout(figures)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start the coordinator")?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Waits until it is up.
    ///
    /// # Errors
    /// When it ends or is not up in time; the message has the end of its log.
    pub async fn is_up(&self, within: Duration) -> anyhow::Result<()> {
        let ports = self.dir.join("ports.json");
        let until = Instant::now() + within;
        while !ports.exists() {
            let ended = match self.process().as_mut() {
                Some(process) => process.try_wait()?,
                None => bail!("the coordinator was not started"),
            };
            if let Some(status) = ended {
                bail!("the coordinator ended: {status}\n{}", self.log_tail());
            }
            if Instant::now() >= until {
                bail!(
                    "the coordinator did not come up within {within:?}\n{}",
                    self.log_tail()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether it is up: with several on one PostgreSQL, whether it leads.
    #[must_use]
    pub fn is_up_now(&self) -> bool {
        self.dir.join("ports.json").exists() && !self.has_ended()
    }

    /// Whether it has no process, by itself or as it was killed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut process = self.process();
        let alive = process.as_mut().map(Child::try_wait);
        !matches!(alive, Some(Ok(None)))
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        lock(&self.process)
    }

    /// Kills it as `kill -9` does.
    pub fn kill_nine(&self) {
        if let Some(mut process) = self.process().take() {
            // It may have ended by itself; it is reaped by the next start, or when dropped.
            let _ = process.start_kill();
            *lock(&self.killed) = Some(process);
        }
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it doesn't stop in time, or not with exit code 0.
    pub async fn stop(&self, within: Duration) -> anyhow::Result<()> {
        let process = self.process().take();
        let Some(mut process) = process else {
            return Ok(());
        };
        let pid = process.id().context("the coordinator has ended before")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let status = tokio::time::timeout(within, process.wait())
            .await
            .with_context(|| format!("the coordinator did not stop\n{}", self.log_tail()))??;
        if !status.success() {
            bail!("the coordinator stopped with {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where GitHub's webhooks go.
    #[must_use]
    pub fn webhook_url(&self) -> String {
        format!("http://{}/webhooks/github", self.addresses.web)
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("muster.toml")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("coordinator.log")
    }

    fn emf(&self) -> PathBuf {
        self.dir.join("coordinator.emf")
    }

    /// What it has told CloudWatch, line by line, oldest first.
    ///
    /// # Errors
    /// When that can't be read.
    pub fn figures(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let text = std::fs::read_to_string(self.emf())?;
        // The last line may still be on its way.
        let lines = text.split_inclusive('\n').filter(|it| it.ends_with('\n'));
        lines
            .map(|line| serde_json::from_str(line).context("figures"))
            .collect()
    }

    /// The folder of its instances.
    #[must_use]
    pub fn instances_dir(&self) -> PathBuf {
        self.dir.join("data/instances")
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().and_then(Child::id)
    }

    /// Has the command line issue a certificate, as an operator would.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn issue_operator_cert(&self, name: &str, out: &Path) -> anyhow::Result<String> {
        let output = Command::new(build::binary("muster-coordinator")?)
            .arg("issue-operator-cert")
            .envs(self.environment.iter().cloned())
            .arg("--config")
            .arg(self.config())
            .args(["--name", name, "--out"])
            .arg(out)
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "issue-operator-cert: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

fn lock(child: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Four free addresses below the range that outgoing connections take their ports from, as the same ones must
/// be free again after a kill; and what keeps other tests from them.
fn free_addresses() -> anyhow::Result<(Addresses, Vec<File>)> {
    let (mut found, mut locks) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let port: u16 = rand::random_range(10_000..32_000);
        let lock = File::create(std::env::temp_dir().join(format!("muster-port-{port}")))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if lock.try_lock().is_err() || TcpListener::bind(address).is_err() {
            continue;
        }
        found.push(address);
        locks.push(lock);
        if let [web, enroll, agents, operators] = found[..] {
            let addresses = Addresses {
                web,
                enroll,
                agents,
                operators,
            };
            return Ok((addresses, locks));
        }
    }
    bail!("no free ports between 10000 and 32000")
}
