//! What fails beside a runner does not end it, and is told as it is.

use std::time::{Duration, Instant};

use muster_proto::v1::{RunnerOutcome, RunnerPhase};
use muster_tests::test_host::Boot;
use rstest::rstest;

use crate::scene::{IDLES, OFF, RUNNER, SCRIPT, SUPERVISOR, Scene, WAITS, play};

/// Well above what systemd's word on an end is waited for, and well below what any timer would do.
const SOON: Duration = Duration::from_secs(20);

#[rstest]
#[case::reloaded("reload")]
#[case::restarted("restart")]
fn a_guard_that_is_loaded_anew_does_not_touch_the_job(#[case] verb: &str) {
    play(async || {
        let scene = Scene::running(WAITS).await;
        let before = scene.host.property(RUNNER, "MainPID").await.unwrap();
        scene.host.read(&["nft", "flush", "ruleset"]).await.unwrap();
        let again = ["systemctl", verb, "muster-imds-guard.service"];
        scene.host.read(&again).await.unwrap();
        let rules = scene.host.read(&["nft", "list", "ruleset"]).await.unwrap();
        assert!(rules.contains("muster_imds_guard"), "{rules}");
        // Whoever was to end with it would be on the way by now.
        let queued = ["systemctl", "list-jobs", "--no-legend", "muster-*"];
        assert_eq!(scene.host.read(&queued).await.unwrap(), "");
        let after = scene.host.property(RUNNER, "MainPID").await.unwrap();
        assert_eq!(before, after, "{}", scene.host.log());
        scene.go();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    });
}

#[test]
fn without_a_guard_there_is_no_job() {
    play(async || {
        let mut scene = Scene::begin(WAITS).await;
        scene.host.read(&["nft", "flush", "ruleset"]).await.unwrap();
        scene.assign().await;
        let finished = scene.session.finished().await;
        assert_eq!(finished.outcome(), RunnerOutcome::StartFailed);
        let why = "it ended before its launcher came";
        assert!(finished.reason.contains(why), "{}", finished.reason);
        scene.host.off(OFF).await.unwrap();
    });
}

/// A host whose supervisor's `systemctl` is this script; the real one is beyond it.
fn systemctl(commands: &str) -> impl FnOnce(Boot) -> Boot + use<> {
    let script = format!("#!/bin/bash\n{commands}\nexec /usr/bin/systemctl \"$@\"\n");
    move |boot| {
        boot.file("/usr/lib/muster/fake/systemctl", &script)
            .drop_in(
                SUPERVISOR,
                "[Service]\nEnvironment=PATH=/usr/lib/muster/fake:/usr/sbin:/usr/bin\n",
            )
    }
}

#[rstest]
#[case::does_not_answer("sleep 6")]
#[case::refuses("echo 'Connection timed out' >&2; exit 1")]
fn a_job_outlives_a_systemd_that_can_not_be_asked_after_it(#[case] how: &str) {
    play(async || {
        // Three times, and then it can.
        let slow = format!(
            "if [[ $1 = show && $(wc -l </run/muster/asked) -lt 2 ]]; then echo >>/run/muster/asked; {how}; fi"
        );
        let change = systemctl(&format!("touch /run/muster/asked\n{slow}"));
        let mut scene = Scene::begin_on(WAITS, change).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        scene.kill(SUPERVISOR).await;
        scene
            .host
            .logged("the runner's unit can't be looked for")
            .await
            .unwrap();
        scene.go();
        let finished = scene.end().await;
        assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
        assert_eq!(finished.exit_code, Some(100));
    });
}

#[test]
fn a_supervisor_killed_between_the_assignment_and_the_start_says_so() {
    play(async || {
        let kills = "if [[ $1 = start && ! -e /run/muster/once ]]; then \
                     touch /run/muster/once; kill -9 $PPID; exit 1; fi";
        let mut scene = Scene::begin_on(WAITS, systemctl(kills)).await;
        scene.assign().await;
        let begin = Instant::now();
        let finished = scene.session.finished().await;
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert_eq!(finished.outcome(), RunnerOutcome::StartFailed);
        assert!(finished.reason.contains("died"), "{}", finished.reason);
        scene.host.off(OFF).await.unwrap();
    });
}

#[test]
fn a_runner_without_a_record_of_its_end_has_ended_all_the_same() {
    play(async || {
        let change = |boot: Boot| boot.drop_in(RUNNER, "[Service]\nExecStopPost=\n");
        let mut scene = Scene::begin_on(IDLES, change).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Listening).await;
        let kill = [
            "systemctl",
            "kill",
            "--kill-who=main",
            "--signal=KILL",
            RUNNER,
        ];
        scene.host.read(&kill).await.unwrap();
        let begin = Instant::now();
        let finished = scene.session.finished().await;
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert_eq!(finished.outcome(), RunnerOutcome::Unused, "{finished:?}");
        assert_eq!((finished.exit_code, finished.signal), (None, None));
        scene.host.off(OFF).await.unwrap();
    });
}

#[test]
fn a_job_that_fills_run_is_told_as_it_ended() {
    play(async || {
        let step = "#!/bin/bash\n\
                    sudo mount -o remount,size=16m /run\n\
                    sudo dd if=/dev/zero of=/run/fill bs=64k\n\
                    df --output=avail /run | tail -1 >/report/left\nexit 0\n";
        let change = |boot: Boot| boot.file("/opt/step", step);
        let mut scene = Scene::begin_on(SCRIPT, change).await;
        scene.assign().await;
        scene.reach(RunnerPhase::Running).await;
        let left = scene.host.report("left").await.unwrap();
        assert_eq!(left.trim(), "0");
        let begin = Instant::now();
        let finished = scene.session.finished().await;
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
        assert_eq!(finished.exit_code, Some(100));
        let log = scene.host.log();
        assert!(!log.contains("the state can't be saved"), "{log}");
        scene.host.off(OFF).await.unwrap();
    });
}
