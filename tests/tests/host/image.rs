//! The image: what EC2 Image Builder does with it, and what may not be in it.

use std::time::Duration;

use muster_tests::test_host::{Boot, TestHost};

use crate::surroundings::{IMDS, Surroundings};

const OFF: Duration = Duration::from_secs(20);
const TEST: &str = "/usr/lib/muster/image/test";
/// The role of the instances that build and test an image.
const BUILDER: &str = "muster-image-x64-BuildRole-1A2B3C4D5E6F";

/// An image of Image Builder's, on an instance with this role.
fn host_of(around: &Surroundings, role: Option<&str>) -> Boot {
    if let Some(role) = role {
        around.give_role(role);
    }
    around
        .host()
        .quiet()
        .file("/etc/muster/image-builder-role", &format!("{BUILDER}\n"))
        .drop_in(
            "muster-build-host.service",
            &format!("[Service]\nEnvironment=AWS_EC2_METADATA_SERVICE_ENDPOINT={IMDS}\n"),
        )
}

async fn end(mut host: TestHost) {
    host.press_power_button().unwrap();
    host.off(OFF).await.unwrap();
}

#[tokio::test]
async fn what_image_builder_launches_is_left_alone_and_passes_the_components_test() {
    let around = Surroundings::new().await;
    let host = host_of(&around, Some(BUILDER)).start().await.unwrap();
    host.booted().await.unwrap();
    // As ami/components/test.yaml calls it.
    let words = [TEST, "--left-alone", "--endpoint", IMDS, "--budget", "20"];
    let said = host.read(&words).await.unwrap();
    assert!(said.ends_with("this image works"), "{said}");
    assert!(
        said.contains("ok    muster-agent.service was never started"),
        "{said}"
    );
    assert!(said.contains("-- critical path"), "{said}");
    // For whoever looks at the boot.
    println!("{said}");

    // What fails it: a budget that no boot keeps, and anything of ours that works.
    let tight = [
        TEST,
        "--left-alone",
        "--endpoint",
        IMDS,
        "--budget",
        "0.001",
    ];
    let said = fails(&host, &tight).await;
    assert!(
        said.contains("FAIL  that is more than the budget of 0.001 s"),
        "{said}"
    );
    host.read(&["rm", "/run/muster-image-build"]).await.unwrap();
    host.read(&["systemctl", "start", "muster-agent.service"])
        .await
        .unwrap();
    let said = fails(&host, &words).await;
    assert!(
        said.contains("FAIL  not known as a host that tests an image"),
        "{said}"
    );
    assert!(
        said.contains("FAIL  muster-agent.service was started: active"),
        "{said}"
    );
    end(host).await;
}

async fn fails(host: &TestHost, words: &[&str]) -> String {
    let output = host.run(words).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn an_image_of_image_builders_works_on_every_other_instance() {
    for role in [None, Some("another-role")] {
        let around = Surroundings::new().await;
        let host = host_of(&around, role).start().await.unwrap();
        host.booted().await.unwrap();
        let said = host.read(&[TEST, "--endpoint", IMDS]).await.unwrap();
        assert!(said.contains("ok    muster-agent.service\n"), "{said}");
        assert!(said.contains("ok    muster-lifetime.timer\n"), "{said}");
        end(host).await;
    }
}

#[tokio::test]
async fn an_image_with_what_makes_one_host_is_refused() {
    passes("identities").await;
}

#[tokio::test]
async fn settings_are_where_they_belong_and_no_secret_is() {
    passes("settings").await;
}

/// A script that tries the image's own scripts on copies of it.
async fn passes(script: &str) {
    let root = muster_tests::test_host::root().await.unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/ami");
    let tried = tokio::process::Command::new(std::path::Path::new(folder).join(script))
        .arg(root)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&tried.stdout);
    let errors = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.success(), "{said}{errors}");
}
