//! The image on a machine with a kernel of its own, as EC2 Image Builder's test phase has it.

use std::time::Duration;

use muster_tests::fakes::imds::FakeImds;
use muster_tests::test_host::Boot;

/// A boot takes half a minute, and three times as long on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// The role of the instances that build and test an image.
const BUILDER: &str = "muster-image-x64-BuildRole-1A2B3C4D5E6F";

#[tokio::test]
async fn a_machine_that_tests_the_image_passes_the_components_test() {
    let imds = FakeImds::start().await.unwrap();
    imds.add_instance("i-1", "c7i.large", "eu-west-1", false);
    imds.set("i-1", "meta-data/iam/security-credentials/", BUILDER);
    // The service at its real address; its port and path are the fake's.
    let service = imds.endpoint("i-1").replace("127.0.0.1", "169.254.169.254");

    let mut machine = Boot::default()
        .file("/etc/muster/image-builder-role", BUILDER)
        .drop_in(
            "muster-build-host.service",
            &format!("[Service]\nEnvironment=AWS_EC2_METADATA_SERVICE_ENDPOINT={service}\n"),
        )
        .drop_in(
            "multi-user.target",
            "[Unit]\nWants=test-of-the-image.service\n",
        )
        .file(
            "/etc/systemd/system/test-of-the-image.service",
            &unit(&service),
        )
        .power_on()
        .await
        .unwrap();
    machine.off(PATIENCE).await.unwrap();

    let log = machine.log();
    // For whoever looks at the boot.
    let said = log
        .lines()
        .filter_map(|line| line.split_once("image-test["));
    for (_, said) in said {
        println!("{}", said.split_once("]: ").map_or(said, |(_, text)| text));
    }
    assert!(log.contains("this image works"), "{log}");
    assert!(
        log.contains("ok    muster-agent.service was never started"),
        "{log}"
    );
    assert!(log.contains("muster-grow-root.service"), "{log}");
}

/// Started with everything else, it waits for the boot's end, as the Systems Manager agent does.
fn unit(service: &str) -> String {
    // The processors are emulated, at a tenth of the speed of real ones.
    let test = format!("/usr/lib/muster/image/test --left-alone --budget 180 --endpoint {service}");
    format!(
        "[Service]\nType=exec\nSyslogIdentifier=image-test\nExecStart=-{test}\n\
         ExecStopPost=/usr/bin/systemctl --no-block poweroff\n"
    )
}
