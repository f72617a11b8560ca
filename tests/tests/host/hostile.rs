//! Jobs without sudo that try to outlive their end, or to keep the supervisor busy, by cgroups of their own.

use std::time::{Duration, Instant};

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Drain, RunnerOutcome, RunnerPhase};
use muster_tests::test_host::Boot;

use crate::scene::{OFF, RUNNER, SCRIPT, Scene, play};

/// A job of these commands, with its cgroup in `$cg`.
fn step(commands: &str) -> impl FnOnce(Boot) -> Boot + use<> {
    let script =
        format!("#!/bin/bash\ncg=/sys/fs/cgroup/system.slice/muster-runner.service\n{commands}\n");
    move |boot| boot.file("/opt/step", &script)
}

#[test]
fn a_daemon_deep_below_its_job_ends_with_it() {
    play(async || {
        let hides = r#"
            d=$cg; for i in $(seq 1 18); do d=$d/x; done
            mkdir -p $d || exit 1
            env -u RUNNER_TRACKING_ID setsid bash -c 'echo $$ > '$d'/cgroup.procs || exit
                trap "" TERM INT HUP
                echo $$ > /report/daemon; while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &
            while [ ! -s /report/daemon ]; do sleep 0.02; done
            # And its worker.
            echo $PPID > $cg/x/cgroup.procs
            touch /report/runs; while [ ! -e /report/go ]; do sleep 0.02; done"#;
        let mut scene = Scene::begin_on(SCRIPT, step(hides)).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        scene.host.report_exists("runs").await.unwrap();
        let pid = scene.host.report("daemon").await.unwrap();
        let lives = ["kill", "-0", pid.trim()];
        assert!(scene.host.run(&lives).await.unwrap().status.success());
        scene.go();
        // Not acknowledged, so that the host stays for a while.
        loop {
            let event = scene.session.event().await;
            if let Some(Kind::RunnerFinished(finished)) = &event.kind {
                assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
                break;
            }
            scene.session.acknowledge(event.sequence).await;
        }
        scene
            .host
            .logged("cleared the runner's processes")
            .await
            .unwrap();
        assert!(!scene.host.run(&lives).await.unwrap().status.success());
        scene.host.press_power_button().unwrap();
        scene.host.off(OFF).await.unwrap();
    });
}

#[test]
fn a_job_with_thousands_of_groups_delays_nobody() {
    play(async || {
        let many = "mkdir $cg/x; (cd $cg/x && seq 1 20000 | xargs -n 2000 mkdir) 2>/dev/null\n\
                    ls $cg/x | grep -c '^[0-9]*$' > /report/made\n\
                    while [ ! -e /report/go ]; do sleep 0.02; done";
        let mut scene = Scene::begin_on(SCRIPT, step(many)).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        let made: u32 = scene
            .host
            .report("made")
            .await
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert_eq!(made, 20_000);
        let drain = Drain {
            reason: "test".into(),
            deadline: None,
        };
        let begin = Instant::now();
        scene.session.send(Message::Drain(drain)).await;
        let busy = |kind: &Kind| matches!(kind, Kind::DrainReport(report) if !report.idle);
        scene.session.take_until(busy).await;
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{:?}",
            begin.elapsed()
        );
        scene.go();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    });
}

#[test]
fn the_hook_of_a_job_is_held_by_the_limits_of_its_runner() {
    play(async || {
        let hook = r#"
            {
                echo '#!/bin/bash'
                echo 'test -s "$MUSTER_INTERRUPTION_FILE" && id -un > /report/hook; exec sleep 100'
            } > $MUSTER_INTERRUPTION_HOOK
            chmod +x $MUSTER_INTERRUPTION_HOOK; touch /report/runs
            while [ ! -e /report/go ]; do sleep 0.02; done"#;
        let mut scene = Scene::begin_on(SCRIPT, step(hook)).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        scene.host.report_exists("runs").await.unwrap();
        let drain = Drain {
            reason: "test".into(),
            deadline: Some((std::time::SystemTime::now() + Duration::from_secs(300)).into()),
        };
        scene.session.send(Message::Drain(drain)).await;
        let said = scene.host.report("hook").await.unwrap();
        assert_eq!(said, "runner\n");
        for name in ["MemoryMax", "TasksMax", "IPAddressDeny"] {
            let of_hook = scene
                .host
                .property("muster-interruption-hook.service", name);
            let (of_hook, of_runner) = (of_hook.await, scene.host.property(RUNNER, name).await);
            let (of_hook, of_runner) = (of_hook.unwrap(), of_runner.unwrap());
            assert_eq!(of_hook, of_runner, "{name}");
            assert!(!of_hook.is_empty() && of_hook != "infinity", "{name}");
        }
        scene.go();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    });
}
