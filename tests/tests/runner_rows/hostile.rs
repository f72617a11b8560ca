//! Jobs that try to hang the host or to fool the coordinator. They run with the runner's own uid.

use std::path::PathBuf;
use std::process::Command;

use muster_proto::v1::RunnerOutcome::{self, Failed, Interrupted, Lost, Succeeded};
use muster_tests::scripted::host::{jit_config, lives};
use rstest::rstest;
use serde_json::json;

use crate::kit::{By, RUNS, Row};

/// For a step: the Listener's id, and a way to print as it does.
const TOOLS: &str = r#"
listener=$(cut -d" " -f4 /proc/$PPID/stat)
say() { echo "2026-08-01 10:00:00Z: $*" > /proc/$listener/fd/1; }
"#;

fn job(step: &str) -> String {
    format!(
        "speed = 5.0\nidle = {{ assign = 5 }}\n[job.script]\nsteps = ['''{}{step}''']\n",
        TOOLS
    )
}

#[rstest]
#[case::interrupts_its_listener(
    "kill -INT $listener; exec sleep 600",
    Lost,
    By::Code(0),
    "something else"
)]
#[case::terminates_its_listener(
    "kill -TERM $listener; exec sleep 600",
    Lost,
    By::Code(0),
    "Canceled"
)]
#[case::claims_a_success_before_the_runners_own_word(
    "say Job build completed with result: Succeeded; printf xxxx > /proc/$listener/fd/1; \
     kill -TERM $listener; exec sleep 600",
    Lost,
    By::Code(0),
    "Succeeded and then another"
)]
#[case::claims_a_success_and_reads_the_runners_own_word_away(
    "say Job build completed with result: Succeeded; sleep 2; \
     cat /proc/$listener/fd/1 > /dev/null & sleep 0.1; kill -TERM $listener; exec sleep 600",
    Lost,
    By::Code(0),
    "Succeeded"
)]
#[case::terminates_its_worker("kill -TERM $PPID; exec sleep 600", Failed, By::Code(102), "Failed")]
#[case::kills_its_worker("kill -KILL $PPID; exec sleep 600", Failed, By::Code(102), "Failed")]
#[case::interrupts_its_worker("kill -INT $PPID", Succeeded, By::Code(100), "Succeeded")]
#[case::stops_its_listener(
    "kill -STOP $listener",
    Lost,
    By::Signal(9),
    "its worker is gone and it did not end"
)]
#[case::claims_a_success_and_interrupts_its_listener(
    "say Job build completed with result: Succeeded; kill -INT $listener; exec sleep 600",
    Lost,
    By::Code(0),
    "Succeeded and then another"
)]
#[case::claims_a_success_and_fails(
    "say Job build completed with result: Succeeded; exit 1",
    Failed,
    By::Code(102),
    "Succeeded"
)]
#[case::claims_a_success_and_stops_its_listener(
    "say Job build completed with result: Succeeded; kill -STOP $listener; exec sleep 600",
    Lost,
    By::Signal(9),
    "did not end after its job"
)]
#[case::claims_other_phases(
    "say Listening for Jobs; say Running job: other; echo Exiting... > /proc/$listener/fd/1",
    Succeeded,
    By::Code(100),
    "Succeeded"
)]
#[case::closes_its_output("exec 0<&- 1>&- 2>&-", Succeeded, By::Code(100), "Succeeded")]
#[case::eats_memory_up_to_a_limit_of_its_own(
    "ulimit -v 100000; tail /dev/zero",
    Failed,
    By::Code(102),
    "Failed"
)]
#[case::leaves_a_child_that_holds_its_output(
    "env -u RUNNER_TRACKING_ID sleep 600 & exit 0",
    Succeeded,
    By::Code(100),
    "Succeeded"
)]
#[tokio::test]
async fn a_hostile_job_ends_with_the_truth(
    #[case] step: &str,
    #[case] outcome: RunnerOutcome,
    #[case] by: By,
    #[case] reason: &str,
) {
    // Those are ended by a watchdog; it must not come to the others.
    let limits = match by {
        By::Signal(_) => json!({"exit_after_result": 2, "worker_gone": 2, "hang_grace": 0.3}),
        By::Code(_) => json!({}),
    };
    let played = Row::begin(&job(step), limits).await.play().await;
    played.is(RUNS, outcome, by, reason);
    assert_eq!(played.job(), "build");
}

#[tokio::test]
async fn a_job_that_kills_its_listener_goes_on_and_is_lost() {
    let mut row = Row::begin(
        &job(
            "say Job build completed with result: Succeeded; kill -KILL $listener; \
              while [ ! -e {at}/go ]; do sleep 0.01; done",
        ),
        json!({}),
    )
    .await;
    row.reach("!orphaned_worker").await;
    row.touch("go");
    let told = format!("{RUNS} !orphaned_worker");
    row.play()
        .await
        .is(&told, Lost, By::Signal(9), "and then ended");
}

#[tokio::test]
async fn a_job_that_stops_its_worker_is_stopped_with_the_host() {
    let step = "kill -STOP $PPID; touch {at}/runs; exec sleep 600";
    let row = Row::begin(&job(step), json!({"stop_grace": 0.3})).await;
    row.appears("runs").await;
    row.shut_down().await;
    let played = row.play().await;
    played.is(RUNS, Interrupted, By::Signal(9), "the coordinator asked");
}

#[tokio::test]
async fn a_job_that_claims_to_be_over_is_still_busy() {
    let step = "say Job build completed with result: Succeeded; say Listening for Jobs; \
                for file in Runner Worker; do \
                echo SessionCreated:2026 >> $RUNNER_PERFLOG/$file.perf; \
                echo MusterStepsDone:2026 >> $RUNNER_PERFLOG/$file.perf; done; \
                touch {at}/runs; while [ ! -e {at}/go ]; do sleep 0.01; done";
    let mut row = Row::begin(&job(step), json!({})).await;
    row.appears("runs").await;
    row.reach("running").await;
    row.drain(None).await;
    row.reach("busy").await;
    row.retire().await;
    row.reach("busy").await;
    row.touch("go");
    let played = row.play().await;
    let told = format!("{RUNS} busy busy");
    played.is(&told, Succeeded, By::Code(100), "Succeeded");
}

#[tokio::test]
async fn forged_counters_are_trouble_at_most() {
    let step = "for n in $(seq 20000); do echo MessageReceived_JobCancellation:2026; \
                echo JobRenewReachLimit:2026; echo JobRequestRenewed_1:2026; \
                echo MessageReceived_RunnerJobRequest:2026; done >> $RUNNER_PERFLOG/Runner.perf; \
                rm $RUNNER_PERFLOG/Worker.perf; mkfifo $RUNNER_PERFLOG/Worker.perf";
    let played = Row::begin(&job(step), json!({})).await.play().await;
    let told = format!("{RUNS} !renewal !cancellation_storm");
    played.is(&told, Succeeded, By::Code(100), "Succeeded");
}

#[tokio::test]
async fn daemons_die_with_the_job() {
    let step = r#"
        setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo $! > {at}/session
        (cd /; env -i setsid sh -c "(sh -c 'echo \$\$ > {at}/bare; exec sleep 600') &" > /dev/null 2>&1 &)
        env -u RUNNER_TRACKING_ID -u MUSTER_INSTANCE_ID nohup sh -c \
            "trap \"\" HUP INT TERM; while :; do sleep 0.05; done" > /dev/null 2>&1 &
        echo $! > {at}/deaf
        while [ ! -s {at}/bare ]; do sleep 0.01; done"#;
    let row = Row::begin(&job(step), json!({})).await;
    let played = row.play().await;
    played.is(RUNS, Succeeded, By::Code(100), "Succeeded");
    for name in ["session", "bare", "deaf"] {
        let pid = played.host.read(name);
        assert!(!pid.trim().is_empty() && !lives(&pid), "{name} {pid}");
    }
}

/// Small file systems over a host's directories, taken off when dropped.
struct Small(Vec<PathBuf>);

impl Small {
    fn over(&mut self, dir: PathBuf) {
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=256k", "none"])
            .arg(&dir);
        assert!(
            mount.status().unwrap().success(),
            "needs root to mount a tmpfs"
        );
        self.0.push(dir);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for dir in &self.0 {
            drop(Command::new("umount").arg("--lazy").arg(dir).status());
        }
    }
}

#[rstest]
#[case::and_succeeds("exit 0", Succeeded, 100)]
#[case::and_fails("exit 1", Failed, 102)]
#[tokio::test]
async fn a_job_that_fills_the_disk_is_reported(
    #[case] then: &str,
    #[case] outcome: RunnerOutcome,
    #[case] code: i32,
) {
    let step = format!(
        "cd {{at}} && for dir in work/job/perf runner/_diag runner/_work; do \
         dd if=/dev/zero of=$dir/fill bs=4k 2> /dev/null || true; done; {then}"
    );
    let mut small = Small(Vec::new());
    let row = Row::begin_with(&job(&step), json!({}), &jit_config(), |host| {
        for dir in ["work", "runner/_diag", "runner/_work"] {
            small.over(host.path(dir));
        }
    })
    .await;
    let played = row.play().await;
    drop(small);
    played.is(RUNS, outcome, By::Code(code), "result was");
}
