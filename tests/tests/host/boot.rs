//! From power-on to the agent.

use std::time::Duration;

use crate::surroundings::{IMDS, Surroundings};

const OFF: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_host_boots_guarded_and_passes_its_own_test() {
    let around = Surroundings::new().await;
    let mut host = around.host().quiet().start().await.unwrap();
    host.booted().await.unwrap();

    // Microseconds since boot. The guard is there before anything of ours that could be asked to run.
    let mut when = Vec::new();
    for (unit, property) in [
        (
            "muster-imds-guard.service",
            "ExecMainExitTimestampMonotonic",
        ),
        (
            "muster-supervisor.service",
            "ExecMainStartTimestampMonotonic",
        ),
        ("muster-agent.service", "ExecMainStartTimestampMonotonic"),
        ("multi-user.target", "ActiveEnterTimestampMonotonic"),
    ] {
        let text = host.property(unit, property).await.unwrap();
        when.push((text.parse::<u64>().unwrap(), unit));
    }
    assert!(when.is_sorted(), "{when:?}");
    // The runner's turn comes when the supervisor says so.
    for (unit, state) in [
        ("muster-runner.service", "inactive"),
        ("muster-linger.timer", "inactive"),
        ("muster-lifetime.timer", "active"),
    ] {
        assert_eq!(
            host.property(unit, "ActiveState").await.unwrap(),
            state,
            "{unit}"
        );
    }

    let agent = "/usr/lib/muster/muster-agent";
    let tested = host
        .read(&[agent, "selftest", "--endpoint", IMDS])
        .await
        .unwrap();
    assert!(
        tested.contains(&format!("ok    {IMDS} as muster-agent: a token")),
        "{tested}"
    );
    assert!(
        tested.contains(&format!("ok    {IMDS} as runner: refused")),
        "{tested}"
    );
    assert!(tested.contains("ok    sudo as runner"), "{tested}");
    assert!(!tested.contains("warn"), "{tested}");

    host.press_power_button().unwrap();
    host.off(OFF).await.unwrap();
}

#[tokio::test]
async fn the_hosts_that_build_and_test_an_image_are_left_alone() {
    let around = Surroundings::new().await;
    let boot = around.host().file("/etc/muster/image-build", "");
    let mut host = boot.start().await.unwrap();
    host.booted().await.unwrap();
    for (unit, state) in [
        ("muster-supervisor.service", "inactive"),
        ("muster-agent.service", "inactive"),
        ("muster-lifetime.timer", "inactive"),
        // What the image's test is there to test.
        ("muster-imds-guard.service", "active"),
    ] {
        assert_eq!(
            host.property(unit, "ActiveState").await.unwrap(),
            state,
            "{unit}"
        );
    }
    host.press_power_button().unwrap();
    host.off(OFF).await.unwrap();
}

#[tokio::test]
async fn systemd_has_nothing_to_say_about_the_units_where_they_are_installed() {
    let root = muster_tests::test_host::root().await.unwrap();
    let verified = tokio::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(format!("--root={}", root.display()))
        .args([
            "muster-agent.service",
            "muster-build-host.service",
            "muster-grow-root.service",
            "muster-imds-guard.service",
            "muster-interruption-hook.service",
            "muster-lifetime.service",
            "muster-lifetime.timer",
            "muster-linger.timer",
            "muster-poweroff.service",
            "muster-preread.service",
            "muster-runner.service",
            "muster-stranded.service",
            "muster-supervisor.service",
            "muster-warmup.service",
            "run-muster.mount",
            "run-muster-job.mount",
        ])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
    assert!(verified.status.success());
}
