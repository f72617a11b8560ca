//! A host without a purpose does not live, whatever of ours is dead.

use std::time::Duration;

use rstest::rstest;

use crate::surroundings::Surroundings;

/// Long enough for a busy machine; a host that ends does so within five seconds.
const OFF: Duration = Duration::from_secs(40);

/// What systemd says of the start limit's action.
const TOO_OFTEN: &str = "Start request repeated too quickly";

#[rstest]
#[case::agent("muster-agent.service", "muster-supervisor.service")]
#[case::supervisor("muster-supervisor.service", "muster-agent.service")]
#[tokio::test]
async fn one_that_can_not_start_ends_the_host(#[case] dead: &str, #[case] alive: &str) {
    let around = Surroundings::new().await;
    let boot = around
        .host()
        .script(dead, "echo 'the configuration is not usable'; exit 64")
        .script(alive, "systemd-notify --ready; exec sleep infinity");
    let mut host = boot.start().await.unwrap();
    host.off(OFF).await.unwrap();
    let log = host.log();
    assert!(log.contains(&format!("{dead}: {TOO_OFTEN}")), "{log}");
}

#[tokio::test]
async fn a_host_without_its_guard_runs_nothing_and_ends() {
    let around = Surroundings::new().await;
    let ran = "echo ran >/report/agent; systemd-notify --ready; exec sleep infinity";
    let boot = around
        .host()
        .file("/usr/lib/muster/imds-guard.nft", "these are no rules\n")
        .script(
            "muster-supervisor.service",
            "systemd-notify --ready; exec sleep infinity",
        )
        .script("muster-agent.service", ran);
    let mut host = boot.start().await.unwrap();
    host.off(OFF).await.unwrap();
    let log = host.log();
    assert!(
        log.contains("muster-imds-guard.service: Failed with result"),
        "{log}"
    );
    assert!(!log.contains("Started muster-agent.service"), "{log}");
}

#[tokio::test]
async fn the_longest_life_ends_a_host_that_is_busy() {
    let around = Surroundings::new().await;
    let stubborn = "trap '' TERM INT; systemd-notify --ready; while :; do sleep 1; done";
    let boot = around
        .host()
        .quiet()
        .script("muster-runner.service", stubborn)
        // A timer's settings add up: the first line takes back what the image has.
        .drop_in(
            "muster-lifetime.timer",
            "[Timer]\nOnBootSec=\nOnBootSec=2s\n",
        )
        .drop_in("muster-runner.service", "[Service]\nTimeoutStopSec=1s\n");
    let mut host = boot.start().await.unwrap();
    host.off(OFF).await.unwrap();
    let log = host.log();
    assert!(log.contains("muster-poweroff.service"), "{log}");
}

#[tokio::test]
async fn a_host_whose_systemd_hangs_on_its_way_off_is_off_all_the_same() {
    let around = Surroundings::new().await;
    let stubborn = "trap '' TERM; systemd-notify --ready; while :; do sleep 1; done";
    let boot = around
        .host()
        .quiet()
        .script("muster-supervisor.service", stubborn)
        .drop_in(
            "muster-poweroff.service",
            "[Service]\nEnvironment=ANSWER=1 IN_ORDER=2 FORCED=1\n",
        );
    let mut host = boot.start().await.unwrap();
    host.booted().await.unwrap();
    let start = [
        "systemctl",
        "start",
        "--no-block",
        "muster-poweroff.service",
    ];
    host.read(&start).await.unwrap();
    host.logged("Starting muster-poweroff.service")
        .await
        .unwrap();
    host.freeze_systemd().unwrap();
    host.off(OFF).await.unwrap();
}

#[tokio::test]
async fn a_host_whose_pool_allows_it_outlives_what_its_image_says() {
    let around = Surroundings::new().await;
    // As the supervisor does; and the timer has run out.
    let lives = "read -r up _ </proc/uptime\n\
                 echo \"$((${up%.*} + 6))\" >/run/muster/lives-until\n\
                 systemctl --no-block start muster-lifetime.service\n\
                 systemd-notify --ready; exec sleep infinity";
    let boot = around
        .host()
        .quiet()
        .script("muster-supervisor.service", lives);
    let begun = std::time::Instant::now();
    let mut host = boot.start().await.unwrap();
    host.off(OFF).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(5));
    let log = host.log();
    assert!(log.contains("muster-poweroff.service"), "{log}");
}

#[tokio::test]
async fn the_end_of_the_runner_is_the_end_of_the_host_a_while_later() {
    let around = Surroundings::new().await;
    let boot = around
        .host()
        .quiet()
        .script("muster-runner.service", "cat /report/go")
        .drop_in(
            "muster-linger.timer",
            "[Timer]\nOnActiveSec=\nOnActiveSec=2s\n",
        )
        .drop_in("muster-runner.service", "[Service]\nExecStopPost=\n");
    let mut host = boot.start().await.unwrap();
    host.booted().await.unwrap();
    host.run(&["systemctl", "start", "muster-runner.service"])
        .await
        .unwrap();
    host.off(OFF).await.unwrap();
    let log = host.log();
    assert!(log.contains("muster-poweroff.service"), "{log}");
}

#[tokio::test]
async fn one_whose_start_hangs_ends_the_host() {
    let around = Surroundings::new().await;
    // That the interval is long enough for the times on the image is another test's.
    let quick = "[Service]\nTimeoutStartSec=1s\nTimeoutStopSec=500ms\n";
    let hangs = "trap '' TERM; while :; do sleep 0.1; done";
    let boot = around
        .host()
        .quiet()
        .script("muster-supervisor.service", hangs)
        .drop_in("muster-supervisor.service", quick);
    let mut host = boot.start().await.unwrap();
    host.off(OFF).await.unwrap();
    let log = host.log();
    let said = format!("muster-supervisor.service: {TOO_OFTEN}");
    assert!(log.contains(&said), "{log}");
}
