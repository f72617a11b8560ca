//! The local provider: an instance is an agent process on this host, with a copy of the official
//! runner of its own. For development, and for ephemeral runners on a machine of one's own.
//!
//! Jobs run as the user of the coordinator, on its host: only code that is trusted may run there.
//!
//! The instances outlive the coordinator. What it needs to know of them after a restart is in their
//! folders: the agent holds a lock while it lives, and leaves a mark that it has started.

mod folder;
mod processes;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{InstanceId, LaunchFailure, LaunchId, Marked};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::folder::{Folder, Liveness};
pub use self::settings::LocalSettings;
use super::{LaunchError, LaunchOrder, Listed, ProviderError};
use crate::clock;
use crate::identity::join_token;
use crate::store::Store;

/// How long a join token works: an agent on this host enrols within seconds of its start.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
/// How long an agent may take to end what it runs before it is killed.
const END_GRACE: Duration = Duration::from_secs(3);
/// A folder without a process is dead after this long: its agent could not even start.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long the log of an instance that ended is kept.
const KEEP_LOGS: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long the rest of an instance may take to die of SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Runs agents as processes of this host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalProvider {
    settings: Arc<LocalSettings>,
    store: Store,
    ended: Arc<Notify>,
    children: TaskTracker,
}

/// The document that an agent reads from its standard input.
#[derive(Serialize)]
struct AgentConfig<'a> {
    enroll_url: &'a str,
    agents_url: &'a str,
    server_name: &'a str,
    trust_anchors_pem: &'a str,
    join_token: &'a str,
    runner_dir: &'a Path,
    work_dir: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_endpoint: Option<String>,
    launch: &'a LaunchId,
    instance_id: &'a InstanceId,
    max_lifetime_seconds: u64,
    runner_environment: &'a BTreeMap<String, String>,
}

impl LocalProvider {
    /// A provider that keeps its instances in the folder of the settings.
    #[must_use]
    pub fn new(settings: LocalSettings, store: Store) -> Self {
        Self {
            settings: Arc::new(settings),
            store,
            ended: Arc::default(),
            children: TaskTracker::new(),
        }
    }

    pub(super) async fn launch(&self, order: LaunchOrder) -> Result<InstanceId, LaunchError> {
        let instance = instance_id(&order.launch);
        let folder = Folder::of(&self.settings.instances_dir, &instance);
        let prepared = {
            let (folder, launch) = (folder.clone(), order.launch.clone());
            let pool = order.pool.clone();
            let runner_dir = self.settings.runner_dir.clone();
            let instance = instance.clone();
            blocking(move || {
                let fresh = folder.liveness() == Liveness::NotStarted;
                if fresh && !processes::any(&instance) {
                    folder.prepare(&launch, &pool, &runner_dir).map(|()| true)
                } else {
                    Ok(false)
                }
            })
            .await
        };
        match prepared {
            // This launch has its process, or had it: never a second one.
            Ok(false) => return Ok(instance),
            Ok(true) => {}
            Err(error) => {
                let runner = self.settings.runner_dir.display();
                return Err(LaunchError::Failed {
                    failure: LaunchFailure::Permanent,
                    detail: format!(
                        "the runner of {runner} can't be copied to {}: {error}",
                        folder.path().display()
                    ),
                });
            }
        }
        self.start(&order, &instance, &folder).await?;
        Ok(instance)
    }

    async fn start(
        &self,
        order: &LaunchOrder,
        instance: &InstanceId,
        folder: &Folder,
    ) -> Result<(), LaunchError> {
        let expires_at = clock::now()
            .checked_add(TOKEN_LIFE)
            .unwrap_or(Timestamp::MAX);
        let (launch, pool) = (order.launch.clone(), order.pool.clone());
        let token = join_token::make(&self.store, launch, pool, instance.clone(), expires_at)
            .await
            .map_err(|error| LaunchError::Unknown(format!("no join token: {error}")))?;
        let config = self.agent_config(order, instance, folder, &token)?;
        let failed = |what: &str, error: &std::io::Error| LaunchError::Failed {
            failure: LaunchFailure::Permanent,
            detail: format!("{what} {}: {error}", self.settings.agent_binary.display()),
        };
        let log = folder.log().map_err(|error| failed("no log for", &error))?;
        let errors = log
            .try_clone()
            .map_err(|error| failed("no log for", &error))?;
        let mut child = Command::new(&self.settings.agent_binary)
            .args(["run", "--config", "-"])
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            .env("HOME", folder.path())
            .env(processes::MARK, instance.as_str())
            .current_dir(folder.path())
            .stdin(std::process::Stdio::piped())
            .stdout(log)
            .stderr(errors)
            // A group of its own: a terminal's Ctrl-C ends the coordinator, not the jobs.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(|error| failed("can't start", &error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // If it does not read, it ends with an error, and is found by the sweep.
            let written = stdin.write_all(config.expose_secret().as_bytes()).await;
            if let Err(error) = written {
                tracing::warn!(instance = instance.as_str(), %error, "the agent did not read its configuration");
            }
        }
        let ended = Arc::clone(&self.ended);
        let instance = instance.clone();
        let log = folder.path().join("agent.log").display().to_string();
        self.children.spawn(async move {
            match child.wait().await {
                Ok(status) if status.success() => {
                    tracing::debug!(instance = instance.as_str(), "agent ended");
                }
                Ok(status) => {
                    tracing::warn!(instance = instance.as_str(), %status, log, "agent failed");
                }
                Err(error) => tracing::warn!(instance = instance.as_str(), %error, "agent can't be waited for"),
            }
            ended.notify_one();
        });
        Ok(())
    }

    fn agent_config(
        &self,
        order: &LaunchOrder,
        instance: &InstanceId,
        folder: &Folder,
        token: &SecretString,
    ) -> Result<SecretString, LaunchError> {
        let settings = &self.settings;
        let endpoint = settings.metadata_endpoint.as_ref();
        let authority = settings.authority.get();
        let config = AgentConfig {
            enroll_url: &settings.enroll_url,
            agents_url: &settings.agents_url,
            server_name: &settings.server_name,
            trust_anchors_pem: authority.trust_anchors_pem(),
            join_token: token.expose_secret(),
            runner_dir: &folder.runner(),
            work_dir: folder.path(),
            metadata_endpoint: endpoint.map(|url| url.replace("{instance_id}", instance.as_str())),
            launch: &order.launch,
            instance_id: instance,
            max_lifetime_seconds: order.lifetime.as_secs(),
            runner_environment: &settings.environment,
        };
        serde_json::to_string(&config)
            .map(SecretString::from)
            .map_err(|error| {
                LaunchError::Unknown(format!(
                    "the agent's configuration can't be written: {error}"
                ))
            })
    }

    pub(super) async fn terminate(&self, instance: &InstanceId) -> Result<bool, ProviderError> {
        let folder = Folder::of(&self.settings.instances_dir, instance);
        if processes::end(instance, END_GRACE, KILL_PATIENCE).await > 0 {
            return Err(ProviderError(format!("processes of {instance} don't die")));
        }
        blocking(move || folder.clear())
            .await
            .map_err(|error| ProviderError(format!("{instance} can't be cleared away: {error}")))?;
        Ok(true)
    }

    pub(super) async fn list(&self) -> Result<Listed, ProviderError> {
        let dir = self.settings.instances_dir.clone();
        let folders = blocking(move || folder::all(&dir)).await.map_err(|error| {
            let dir = self.settings.instances_dir.display();
            ProviderError(format!("{dir} can't be read: {error}"))
        })?;
        let mut listed = Listed::default();
        for (instance, launch, liveness) in folders {
            let age = folder::age(&self.settings.instances_dir, &instance);
            let dead = liveness == Liveness::NotStarted
                && age >= START_PATIENCE
                && !processes::any(&instance);
            match liveness {
                Liveness::Cleared => self.forget_old(&instance, age).await,
                Liveness::NotStarted | Liveness::Alive if !dead => {
                    let folder = Folder::of(&self.settings.instances_dir, &instance);
                    let origin = folder.origin();
                    listed.alive.push(Marked {
                        instance,
                        // It may have been made since; what has a pool has a launch.
                        launch: launch.or_else(|| folder.launch()),
                        origin,
                    });
                }
                Liveness::NotStarted | Liveness::Alive | Liveness::Ended => {
                    // Its agent is dead; what it left behind goes with it.
                    if let Err(error) = self.terminate(&instance).await {
                        tracing::warn!(instance = instance.as_str(), %error, "an ended instance is still there");
                    } else {
                        listed.gone.push((instance, launch));
                    }
                }
            }
        }
        Ok(listed)
    }

    /// Removes the folder of an instance that ended long ago, with the log in it.
    async fn forget_old(&self, instance: &InstanceId, age: Duration) {
        if age < KEEP_LOGS {
            return;
        }
        let folder = Folder::of(&self.settings.instances_dir, instance);
        if let Err(error) = blocking(move || folder.remove()).await {
            tracing::warn!(instance = instance.as_str(), %error, "an old folder can't be removed");
        }
    }

    pub(super) async fn something_ended(&self) {
        self.ended.notified().await;
    }
}

/// The instance id of a launch: the same each time, so that a repeated launch finds its instance.
fn instance_id(launch: &LaunchId) -> InstanceId {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, launch.as_str().as_bytes());
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    InstanceId::new(format!("i-{}", &hex[..17]))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}
