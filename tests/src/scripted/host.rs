//! An agent's process in a directory of its own, with a shell script as its runner.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::authority::SERVER_NAME;
use super::coordinator::{Coordinator, TOKEN};
use super::within;
use crate::standin::install_runner;
use crate::world::build::{binary, mortal};
use crate::world::{kill_all, processes_of};

/// Shell functions that print what the runner would.
const PRELUDE: &str = r#"#!/bin/sh
say() { echo "2026-08-01 10:00:00Z: $*"; }
listen() { echo "Current runner version: '2.336.0'"; say "Listening for Jobs"; }
run_job() { say "Running job: $1"; }
complete() { say "Job $1 completed with result: $2"; }
perf() { echo "$1:2026-08-01T10:00:00.0000000Z" >> "$RUNNER_PERFLOG/Runner.perf"; }
# Waits without a child that would hold a trap back.
idle() { while :; do sleep 0.05; done; }
"#;

/// Directories, and what to tell the agent.
pub struct Host {
    /// All of it.
    pub dir: TempDir,
    /// The agent's configuration.
    pub config: Value,
}

/// An id that no other test in any process has: the agent kills by it.
pub fn unique_instance_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    format!("i-test-{}-{number}", std::process::id())
}

/// A configuration that the runner would accept.
pub fn jit_config() -> String {
    let key = BASE64_STANDARD.encode(json!({"d": "dGhlLXByaXZhdGUta2V5LW9mLXRlc3Q="}).to_string());
    let files = json!({".runner": "e30=", ".credentials": "e30=", ".credentials_rsaparams": key});
    BASE64_STANDARD.encode(files.to_string())
}

impl Host {
    /// `script` is what `bin/Runner.Listener` does.
    pub fn new(coordinator: &Coordinator, script: &str) -> Self {
        let host = Self::bare(coordinator);
        let listener = host.path("runner/bin/Runner.Listener");
        std::fs::write(&listener, format!("{PRELUDE}{script}")).unwrap();
        std::fs::set_permissions(&listener, PermissionsExt::from_mode(0o755)).unwrap();
        host
    }

    /// The stand-in is the runner, with a scenario.
    pub fn standin(coordinator: &Coordinator, scenario: &str) -> Self {
        let host = Self::bare(coordinator);
        install_runner(&host.path("runner")).unwrap();
        std::fs::write(host.path("runner/scenario.toml"), scenario).unwrap();
        host
    }

    fn bare(coordinator: &Coordinator) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runner = dir.path().join("runner");
        let work = dir.path().join("work");
        std::fs::create_dir_all(runner.join("bin")).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        let config = json!({
            "enroll_url": format!("https://{}", coordinator.enroll),
            "agents_url": format!("https://{}", coordinator.agents),
            "server_name": SERVER_NAME,
            "trust_anchors_pem": coordinator.authority_pem,
            "join_token": TOKEN,
            "runner_dir": runner,
            "work_dir": work,
            "launch": "l-1",
            "instance_id": coordinator.behaviour.instance_id,
            "max_lifetime_seconds": 600,
        });
        Self { dir, config }
    }

    /// A file of this host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a file holds; nothing if it can't be read.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Starts an agent, its log in the file `log`.
    pub async fn start(&self) -> Agent {
        self.start_with(agent_command("run"), &self.config).await
    }

    /// Starts `command` with `config` on its standard input and the log in the file `log`.
    pub async fn start_with(&self, mut command: Command, config: &Value) -> Agent {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let mut child = command
            .env("AGENT_SECRET", "not-for-the-job")
            .stdin(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(config.to_string().as_bytes())
            .await
            .unwrap();
        Agent(child)
    }

    /// What the supervisor of this host reads.
    pub fn supervisor_config(&self) -> Value {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::current())
            .unwrap()
            .unwrap();
        json!({
            "runner_dir": self.config["runner_dir"],
            "work_dir": self.config["work_dir"],
            "max_lifetime_seconds": 600,
            "runner_unit": "none",
            "instance_id": self.config["instance_id"],
            "agent_user": user.name,
            "runner_user": user.name,
        })
    }

    /// What the front of this host reads.
    pub fn front_config(&self) -> Value {
        let mut config = self.config.clone();
        let fields = config.as_object_mut().unwrap();
        for name in ["runner_dir", "work_dir", "max_lifetime_seconds"] {
            fields.remove(name);
        }
        fields.insert(
            "supervisor_socket".into(),
            json!(self.path("work/supervisor.sock")),
        );
        config
    }
}

/// A test that fails in its middle leaves a runner whose agent was killed.
impl Drop for Host {
    fn drop(&mut self) {
        let id = self.config["instance_id"].as_str().unwrap_or_default();
        kill_all(processes_of(&[id.to_owned()]));
    }
}

/// The agent's binary with one of its commands, to be configured on standard input.
pub fn agent_command(command: &str) -> Command {
    let mut agent = mortal(binary("muster-agent").unwrap());
    agent.args([command, "--config", "-"]);
    agent
}

/// A running agent.
pub struct Agent(Child);

impl Agent {
    /// Waits for its end.
    pub async fn exit(mut self) -> ExitStatus {
        within("the agent's end", self.0.wait()).await.unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

/// Whether a process exists and isn't a zombie.
pub fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .is_some_and(|(_, s)| s.starts_with(" Z"))
    })
}
