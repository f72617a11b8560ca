//! A job that eats all memory.

use muster_tests::fakes::github::{Conclusion, JobSpec};
use muster_tests::test_host::machine::MEMORY_MIB;

use crate::scene::{Ended, play};

/// What must be true in the job before it eats. The first that isn't fails the step, and nothing is eaten.
const TRUE_IN_A_JOB: [&str; 6] = [
    // What is kept for the supervisor is kept by its slice, too.
    "test $(cat /sys/fs/cgroup/system.slice/memory.min) -ge 48000000",
    "grep -qx '0::/system.slice/muster-runner.service' /proc/self/cgroup",
    "test $(cat /sys/fs/cgroup/system.slice/muster-runner.service/memory.max) != max",
    // The worker's; the step's own is raised.
    "test $(cat /proc/$PPID/oom_score_adj) = -500",
    // Root passes the guard's rules, which know users: by a unit of its own it gets through.
    "address=${METADATA#http://}; address=${address%%/*}; \
     sudo systemd-run --quiet --wait bash -c \": >/dev/tcp/${address/://}\"",
    // But the address is denied to the job's cgroup.
    "address=${METADATA#http://}; address=${address%%/*}; \
     ! sudo timeout 2 bash -c \": >/dev/tcp/${address/://}\"",
];

/// Eats until little is left, waits until that was noticed, and eats the rest.
const EATS: &str = r#"systemd-cat -t job echo 'about to eat'
exec perl -e '
    sub available { open(F, "/proc/meminfo"); while (<F>) { return $1 / 1024 if /^MemAvailable: +(\d+)/ } }
    $noticed = "sudo journalctl --quiet --unit=muster-supervisor.service | grep -q \"of memory are available\"";
    push @eaten, "x" x (1 << 20) while available() > 80;
    for (1 .. 300) { last if system($noticed) == 0; select(undef, undef, undef, 0.1) }
    push @eaten, "x" x (1 << 20) while 1'
"#;

#[tokio::test]
async fn a_job_that_eats_all_memory_dies_alone_and_everybody_is_told() {
    let mut job = JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]);
    for step in TRUE_IN_A_JOB {
        job = job.step(step);
    }
    let ended = play(job.step(EATS).step("systemd-cat -t job echo 'not reached'")).await;

    // GitHub and the coordinator know the same end, from a runner that has lived.
    assert_eq!(ended.job.conclusion, Some(Conclusion::Failure), "{ended}");
    assert!(ended.log.contains("about to eat"), "{ended}");
    assert!(!ended.log.contains("not reached"), "{ended}");
    let end = ended.told("ended");
    assert!(end.ends_with("its job's result was Failed"), "{ended}");

    // That it would die, that it has died, and of what.
    ended.told("memory low");
    let kill = ended.told("out of memory");
    assert!(kill.contains("killed 1 process of the job"), "{ended}");
    let most = kill.split_once("used up to ").unwrap().1;
    let most: f64 = most.strip_suffix(" MiB").unwrap().parse().unwrap();
    let all = f64::from(MEMORY_MIB);
    assert!(all * 0.7 < most && most < all * 0.95, "{ended}");

    only_the_step_died(&ended);
}

/// The kernel has killed the step, and nothing of ours died or was started again.
fn only_the_step_died(ended: &Ended) {
    let killed: Vec<_> = ended
        .log
        .lines()
        .filter(|line| line.contains("Killed process "))
        .collect();
    assert_eq!(killed.len(), 1, "{ended}");
    assert!(killed[0].contains("(perl)"), "{ended}");
    assert!(killed[0].contains("oom_score_adj:500"), "{ended}");
    // The agent leaves with the supervisor, which ends with the host.
    let life = ended.log.split_once("switching the host off");
    let (life, _) = life.unwrap_or_else(|| panic!("it did not switch itself off\n{ended}"));
    for word in ["Scheduled restart job", "Watchdog timeout"] {
        assert!(!life.contains(word), "{word}\n{ended}");
    }
}
