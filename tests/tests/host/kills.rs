//! Whoever is killed on a host, the coordinator ends with the truth, and the host is off.

use std::time::Duration;

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Configure, RunnerOutcome, RunnerPhase};
use rstest::rstest;
use serde_json::json;

use crate::scene::{AGENT, HANGS, IDLES, OFF, RUNNER, SUPERVISOR, Scene, WAITS, play};

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
        scene.shut_down().await;
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
        scene.shut_down().await;
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

#[rstest]
#[case::listening(IDLES, RunnerPhase::Listening, RunnerOutcome::Unused)]
#[case::assigned(HANGS, RunnerPhase::Assigned, RunnerOutcome::Lost)]
fn a_listener_that_is_killed_before_its_job_runs(
    #[case] scenario: &str,
    #[case] phase: RunnerPhase,
    #[case] outcome: RunnerOutcome,
) {
    play(async || {
        let mut scene = Scene::begin(scenario).await;
        scene.assign().await;
        scene.reach(phase).await;
        let kill = ["pkill", "-KILL", "-x", "Runner.Listener"];
        scene.host.read(&kill).await.unwrap();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), outcome, "{finished:?}");
        assert_eq!((finished.exit_code, finished.signal), (None, Some(9)));
    });
}

#[test]
fn a_host_that_somebody_shuts_down_interrupts_its_job_and_says_so() {
    play(async || {
        let scene = Scene::running(WAITS).await;
        scene.host.report_exists("runs").await.unwrap();
        scene
            .host
            .read(&["systemctl", "--no-block", "poweroff"])
            .await
            .unwrap();
        let finished = scene.end().await;
        assert_eq!(
            finished.outcome(),
            RunnerOutcome::Interrupted,
            "{finished:?}"
        );
        assert!(finished.reason.contains("shut down"), "{finished:?}");
    });
}

#[test]
fn a_runner_that_has_to_be_killed_leaves_word_of_its_end() {
    // On a busy host what records the end takes its time, and meanwhile all is killed again.
    let supervisor = json!({
        "runner_dir": "/opt/actions-runner",
        "max_lifetime_seconds": 600,
        "runner_limits": { "repeat_interrupt": 0.3 },
    });
    let slow = "[Service]\nExecStopPost=\n\
                ExecStopPost=+/bin/sh -c 'sleep 0.5; exec /usr/lib/muster/muster-agent record-exit'\n";
    play(async || {
        let deaf = format!("deaf_ms = 3600000\n{IDLES}");
        let mut scene = Scene::begin_on(&deaf, |boot| {
            boot.drop_in(RUNNER, slow)
                .file("/etc/muster/supervisor.json", &supervisor.to_string())
        })
        .await;
        let grace = Duration::from_millis(300);
        let quick = Configure {
            stop_grace: Some(grace.try_into().unwrap()),
            ..Configure::default()
        };
        scene.session.send(Message::Configure(quick)).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Listening).await;
        scene.shut_down().await;
        let finished = scene.end().await;
        assert_eq!(
            (finished.exit_code, finished.signal),
            (None, Some(9)),
            "{finished:?}"
        );
    });
}

#[test]
fn a_host_whose_agent_is_gone_for_good_ends_after_its_job() {
    play(async || {
        let mut scene = Scene::begin_with(WAITS, Duration::from_secs(10), |boot| boot).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        let stop = ["systemctl", "stop", AGENT];
        scene.host.read(&stop).await.unwrap();
        let runner = scene.host.property(RUNNER, "ActiveState");
        assert_eq!(runner.await.unwrap(), "active");
        scene.go();
        scene.host.off(OFF).await.unwrap();
    });
}
