//! Stands where the local provider starts an agent, and boots a whole host instead.
//!
//! Like the agent, it reads its configuration from standard input and holds the lock of its folder as
//! long as the instance lives. The configuration becomes that of the host's agent and supervisor.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_tests::test_host::Boot;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// What the supervisor needs of the agent's configuration; the rest is the agent's.
const SUPERVISORS: [&str; 2] = ["max_lifetime_seconds", "runner_environment"];
/// How long a host lives at most: no test takes longer.
const LIFE: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let mut config: Map<String, Value> =
        serde_json::from_str(&text).context("read the configuration")?;
    let folder = config.remove("work_dir").context("no work_dir")?;
    let _claim = claim(Path::new(folder.as_str().context("work_dir is no text")?))?;
    let (agent, supervisor) = split(config)?;
    let boot = Boot::default()
        .secret("/etc/muster/agent.json", "muster-agent", &agent.to_string())
        .file("/etc/muster/supervisor.json", &supervisor.to_string());
    let mut host = boot.start().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let status = tokio::select! {
        status = host.off(LIFE) => status,
        _ = terminate.recv() => {
            host.press_power_button()?;
            host.off(LIFE).await
        }
    };
    // The provider keeps this with the instance.
    let log = host.log();
    std::io::Write::write_all(&mut std::io::stdout(), log.as_bytes())?;
    let status = status?;
    ensure!(status.success(), "the host ended with {status}");
    Ok(())
}

/// As the agent does: locked while it lives, marked for ever.
fn claim(folder: &Path) -> anyhow::Result<Flock<std::fs::File>> {
    let file = std::fs::File::create(folder.join("instance.lock"))?;
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    std::fs::File::create_new(folder.join("started"))?;
    Ok(lock)
}

/// The configurations of agent and supervisor on the host.
fn split(mut config: Map<String, Value>) -> anyhow::Result<(Value, Value)> {
    let mut supervisor = json!({
        "runner_dir": "/opt/actions-runner",
        "work_dir": "/run/muster",
        "coordinator_lost_seconds": 60,
        "agent_user": "muster-agent",
        "runner_user": "runner",
    });
    config.remove("runner_dir");
    for name in SUPERVISORS {
        if let Some(value) = config.remove(name) {
            supervisor[name] = value;
        }
    }
    // The service is where it is on EC2; the fake knows the instance by the path.
    let instance = config.get("instance_id").and_then(Value::as_str);
    let instance = instance.context("no instance_id")?;
    let endpoint = format!("http://169.254.169.254/{instance}");
    config.insert("metadata_endpoint".into(), endpoint.into());
    config.insert(
        "supervisor_socket".into(),
        "/run/muster/supervisor.sock".into(),
    );
    Ok((config.into(), supervisor))
}
