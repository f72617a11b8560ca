//! A booted host and the coordinator that it enrolled at, for tests that look from both sides.

use std::time::Duration;

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{RunnerFinished, RunnerPhase, Shutdown};
use muster_tests::network::Namespace;
use muster_tests::scripted::coordinator::{Coordinator, Session};
use muster_tests::scripted::host::{Host, jit_config, unique_instance_id};
use muster_tests::test_host::{Boot, TestHost};
use muster_tests::world::wait_for;
use serde_json::json;

pub(crate) const OFF: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const AGENT: &str = "muster-agent.service";
pub(crate) const SUPERVISOR: &str = "muster-supervisor.service";
pub(crate) const RUNNER: &str = "muster-runner.service";

/// A job that waits for the file `go`.
pub(crate) const WAITS: &str = "speed = 50.0\nidle = { assign = 500 }\n[job.script]\nsetup_ms = 100\nsteps = [\
                     'touch /report/runs; while [ ! -e /report/go ]; do sleep 0.02; done']\n";
/// A runner that nobody gives a job.
pub(crate) const IDLES: &str = "speed = 50.0\nidle = { assign = 3600000 }\n";
/// A runner that hangs once it was given one.
pub(crate) const HANGS: &str = "speed = 50.0\nidle = { assign = 500 }\nassign = 'acquire_hang'\n";

/// A job of this script, on the host as `/opt/step`.
pub(crate) const SCRIPT: &str = "speed = 50.0\nidle = { assign = 500 }\n[job.script]\nsetup_ms = 100\n\
                                 steps = ['exec /opt/step']\n";

pub(crate) struct Scene {
    pub(crate) coordinator: Coordinator,
    pub(crate) session: Session,
    pub(crate) host: TestHost,
}

impl Scene {
    pub(crate) async fn begin(scenario: &str) -> Self {
        Self::begin_on(scenario, |boot| boot).await
    }

    /// On a host that is different from the image.
    pub(crate) async fn begin_on(scenario: &str, change: impl FnOnce(Boot) -> Boot) -> Self {
        Self::begin_with(scenario, Duration::from_secs(60), change).await
    }

    /// The host waits `patience` for a coordinator that doesn't answer.
    pub(crate) async fn begin_with(
        scenario: &str,
        patience: Duration,
        change: impl FnOnce(Boot) -> Boot,
    ) -> Self {
        let mut coordinator = Coordinator::start(&unique_instance_id()).await;
        let mut agent = Host::new(&coordinator, "").front_config();
        agent["supervisor_socket"] = "/run/muster/supervisor.sock".into();
        let supervisor = json!({
            "runner_dir": "/opt/actions-runner",
            "max_lifetime_seconds": 600,
            "coordinator_lost_seconds": patience.as_secs(),
        });
        let boot = Boot::default()
            .secret("/etc/muster/agent.json", "muster-agent", &agent.to_string())
            .file("/etc/muster/supervisor.json", &supervisor.to_string())
            .file("/opt/actions-runner/scenario.toml", scenario);
        let host = change(boot).start().await.unwrap();
        let session = coordinator.session().await;
        Self {
            coordinator,
            session,
            host,
        }
    }

    /// A host whose job runs.
    pub(crate) async fn running(scenario: &str) -> Self {
        let mut scene = Self::begin(scenario).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        scene
    }

    pub(crate) async fn assign(&self) {
        self.session.assign("runner-1", &jit_config()).await;
    }

    pub(crate) async fn reach(&mut self, wanted: RunnerPhase) {
        self.session
            .take_until(|kind| match kind {
                Kind::PhaseChanged(changed) => changed.phase() == wanted,
                Kind::RunnerFinished(finished) => panic!("ended too soon: {finished:#?}"),
                _ => false,
            })
            .await;
    }

    /// Kills the main process of a unit, and waits for the one that takes its place.
    pub(crate) async fn kill(&mut self, unit: &str) {
        let pid = self.host.property(unit, "MainPID").await.unwrap();
        let kill = [
            "systemctl",
            "kill",
            "--kill-who=main",
            "--signal=KILL",
            unit,
        ];
        self.host.read(&kill).await.unwrap();
        wait_for("another process", PATIENCE, || async {
            let state = self.host.property(unit, "ActiveState").await?;
            let other = self.host.property(unit, "MainPID").await?;
            Ok((state == "active" && other != "0" && other != pid).then_some(()))
        })
        .await
        .unwrap();
        if unit == AGENT {
            self.session = self.coordinator.session().await;
        }
    }

    pub(crate) async fn shut_down(&self) {
        let stop = Shutdown {
            reason: "test".into(),
        };
        self.session.send(Message::Shutdown(stop)).await;
    }

    pub(crate) fn go(&self) {
        self.host.leave("go").unwrap();
    }

    /// The end, and the end of the host after it.
    pub(crate) async fn end(mut self) -> RunnerFinished {
        let finished = self.session.finished().await;
        self.host.off(OFF).await.unwrap();
        let enrolments = &self.coordinator.behaviour.enrolments;
        assert_eq!(enrolments.load(std::sync::atomic::Ordering::SeqCst), 1);
        finished
    }
}

/// Plays `scene` where the coordinator's loopback is the host's too.
pub(crate) fn play(scene: impl AsyncFnOnce() + Send) {
    let network = Namespace::new().unwrap();
    network
        .enter(|| {
            tokio::runtime::Runtime::new()?.block_on(scene());
            Ok(())
        })
        .unwrap();
}
