//! Whoever is killed on a host, the coordinator ends with the truth, and the host is off.

use std::time::Duration;

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{RunnerFinished, RunnerOutcome, RunnerPhase, Shutdown};
use muster_tests::network::Namespace;
use muster_tests::scripted::coordinator::{Coordinator, Session};
use muster_tests::scripted::host::{Host, jit_config, unique_instance_id};
use muster_tests::test_host::{Boot, TestHost};
use muster_tests::world::wait_for;
use rstest::rstest;
use serde_json::json;

const OFF: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(20);
const AGENT: &str = "muster-agent.service";
const SUPERVISOR: &str = "muster-supervisor.service";

/// A job that waits for the file `go`.
const WAITS: &str = "speed = 50.0\nidle = { assign = 500 }\n[job.script]\nsetup_ms = 100\nsteps = [\
                     'touch /report/runs; while [ ! -e /report/go ]; do sleep 0.02; done']\n";
/// A runner that nobody gives a job.
const IDLES: &str = "speed = 50.0\nidle = { assign = 3600000 }\n";
/// A runner that hangs once it was given one.
const HANGS: &str = "speed = 50.0\nidle = { assign = 500 }\nassign = 'acquire_hang'\n";

/// A booted host and the coordinator that it enrolled at.
struct Scene {
    coordinator: Coordinator,
    session: Session,
    host: TestHost,
}

impl Scene {
    async fn begin(scenario: &str) -> Self {
        Self::begin_with(scenario, Duration::from_secs(60)).await
    }

    /// The host waits `patience` for a coordinator that doesn't answer.
    async fn begin_with(scenario: &str, patience: Duration) -> Self {
        let mut coordinator = Coordinator::start(&unique_instance_id()).await;
        let mut agent = Host::new(&coordinator, "").front_config();
        agent["supervisor_socket"] = "/run/muster/supervisor.sock".into();
        let supervisor = json!({
            "runner_dir": "/opt/actions-runner",
            "max_lifetime_seconds": 600,
            "coordinator_lost_seconds": patience.as_secs(),
        });
        let boot = Boot::new("/proc/self/ns/net".into())
            .secret("/etc/muster/agent.json", "muster-agent", &agent.to_string())
            .file("/etc/muster/supervisor.json", &supervisor.to_string())
            .file("/opt/actions-runner/scenario.toml", scenario);
        let host = boot.start().await.unwrap();
        let session = coordinator.session().await;
        Self {
            coordinator,
            session,
            host,
        }
    }

    async fn assign(&self) {
        self.session.assign("runner-1", &jit_config()).await;
    }

    async fn reach(&mut self, wanted: RunnerPhase) {
        self.session
            .take_until(|kind| match kind {
                Kind::PhaseChanged(changed) => changed.phase() == wanted,
                Kind::RunnerFinished(finished) => panic!("ended too soon: {finished:#?}"),
                _ => false,
            })
            .await;
    }

    /// Kills the main process of a unit, and waits for the one that takes its place.
    async fn kill(&mut self, unit: &str) {
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

    fn go(&self) {
        self.host.leave("go").unwrap();
    }

    /// The end, and the end of the host after it.
    async fn end(mut self) -> RunnerFinished {
        let finished = self.session.finished().await;
        self.host.off(OFF).await.unwrap();
        let enrolments = &self.coordinator.behaviour.enrolments;
        assert_eq!(enrolments.load(std::sync::atomic::Ordering::SeqCst), 1);
        finished
    }
}

/// Plays `scene` where the coordinator's loopback is the host's too.
fn play(scene: impl AsyncFnOnce() + Send) {
    let network = Namespace::new().unwrap();
    network
        .enter(|| {
            tokio::runtime::Runtime::new()?.block_on(scene());
            Ok(())
        })
        .unwrap();
}

#[rstest]
#[case::agent(&[AGENT])]
#[case::supervisor(&[SUPERVISOR])]
#[case::both(&[SUPERVISOR, AGENT])]
fn before_there_is_a_runner(#[case] victims: &[&str]) {
    play(async || {
        let mut scene = Scene::begin(WAITS).await;
        for unit in victims {
            scene.kill(unit).await;
        }
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        scene.go();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    });
}

#[rstest]
#[case::agent(&[AGENT])]
#[case::supervisor(&[SUPERVISOR])]
fn while_the_runner_listens(#[case] victims: &[&str]) {
    play(async || {
        let mut scene = Scene::begin(IDLES).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Listening).await;
        for unit in victims {
            scene.kill(unit).await;
        }
        let stop = Message::Shutdown(Shutdown {
            reason: "test".into(),
        });
        scene.session.send(stop).await;
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), RunnerOutcome::Unused, "{finished:?}");
        assert_eq!(finished.exit_code, Some(0));
    });
}

#[rstest]
#[case::agent(&[AGENT])]
#[case::supervisor(&[SUPERVISOR])]
fn while_the_runner_fetches_its_job(#[case] victims: &[&str]) {
    play(async || {
        let mut scene = Scene::begin(HANGS).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Assigned).await;
        for unit in victims {
            scene.kill(unit).await;
        }
        let stop = Message::Shutdown(Shutdown {
            reason: "test".into(),
        });
        scene.session.send(stop).await;
        let finished = scene.end().await;
        assert_eq!(
            finished.outcome(),
            RunnerOutcome::Interrupted,
            "{finished:?}"
        );
    });
}

#[rstest]
#[case::agent(&[AGENT])]
#[case::supervisor(&[SUPERVISOR])]
#[case::both(&[SUPERVISOR, AGENT])]
#[case::again_and_again(&[SUPERVISOR, AGENT, SUPERVISOR, AGENT])]
fn while_the_job_runs(#[case] victims: &[&str]) {
    play(async || {
        let mut scene = Scene::begin(WAITS).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        for unit in victims {
            scene.kill(unit).await;
        }
        scene.go();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
        assert_eq!(finished.exit_code, Some(100));
    });
}

#[rstest]
#[case::agent(&[AGENT])]
#[case::supervisor(&[SUPERVISOR])]
fn after_the_end_was_told_and_before_it_was_heard(#[case] victims: &[&str]) {
    play(async || {
        let mut scene = Scene::begin(WAITS).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        scene.go();
        let told = scene.session.event().await;
        assert!(matches!(told.kind, Some(Kind::RunnerFinished(_))));
        for unit in victims {
            scene.kill(unit).await;
        }
        if victims.contains(&AGENT) {
            // The same again, to the coordinator that has not said that it knows.
            assert_eq!(scene.session.event().await, told);
        }
        scene.session.acknowledge(told.sequence).await;
        scene.host.off(OFF).await.unwrap();
    });
}

#[rstest]
#[case::listener("Runner.Listener", RunnerOutcome::Lost, None, Some(9))]
#[case::worker("Runner.Worker", RunnerOutcome::Failed, Some(102), None)]
fn a_runner_that_is_killed_in_its_unit(
    #[case] victim: &str,
    #[case] outcome: RunnerOutcome,
    #[case] code: Option<i32>,
    #[case] signal: Option<i32>,
) {
    play(async || {
        let mut scene = Scene::begin(WAITS).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        scene.host.report_exists("runs").await.unwrap();
        let kill = ["pkill", "-KILL", "-x", victim];
        scene.host.read(&kill).await.unwrap();
        if victim == "Runner.Listener" {
            scene
                .session
                .take_until(|kind| matches!(kind, Kind::RunnerTrouble(_)))
                .await;
        }
        scene.go();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), outcome, "{finished:?}");
        assert_eq!((finished.exit_code, finished.signal), (code, signal));
    });
}

#[test]
fn a_host_whose_agent_is_gone_for_good_ends_after_its_job() {
    play(async || {
        let mut scene = Scene::begin_with(WAITS, Duration::from_secs(3)).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        let stop = ["systemctl", "stop", AGENT];
        scene.host.read(&stop).await.unwrap();
        let runner = scene.host.property("muster-runner.service", "ActiveState");
        assert_eq!(runner.await.unwrap(), "active");
        scene.go();
        scene.host.off(OFF).await.unwrap();
    });
}
