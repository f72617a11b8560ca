//! The guard of the metadata service, between real network namespaces.

use muster_tests::network::Namespace;

use crate::machine::{IPV4, IPV6, Machine, RULES, failed};

const BUILD_HOST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ami/image/build-host");

#[test]
fn the_agent_is_answered_and_the_job_refused_at_once() {
    let machine = Machine::new();
    let loaded = machine.load(RULES);
    assert!(loaded.status.success(), "{loaded:?}");
    let report = machine.selftest();
    assert_eq!(report["passed"], true, "{report:#}");
    // The table; for each address two who may, one who may not, and what that one sees.
    assert_eq!(report["checks"].as_array().unwrap().len(), 1 + 2 * 4);
    assert_eq!(failed(&report), [""; 0]);
    assert_eq!(
        machine.refused("only_allowed"),
        2,
        "one attempt by each address"
    );
    assert_eq!(machine.refused("nobody"), 0);
}

#[test]
fn without_the_guard_the_selftest_fails_and_names_who_gets_through() {
    let machine = Machine::new();
    let report = machine.selftest();
    assert_eq!(report["passed"], false);
    assert_eq!(
        failed(&report),
        [
            "nftables table inet muster_imds_guard".to_owned(),
            format!("{IPV4} as runner"),
            format!("{IPV6} as runner"),
        ]
    );
}

#[test]
fn an_instance_profile_is_told_of_and_a_job_that_sees_it_fails_the_test() {
    let machine = Machine::new();
    let roles = "meta-data/iam/security-credentials/";
    machine.imds.set("i-1", roles, "a-role");
    let open = machine.selftest();
    assert!(
        failed(&open).contains(&format!("{IPV4} as runner, credentials").as_str()),
        "{open:#}"
    );
    assert!(machine.load(RULES).status.success());
    let guarded = machine.selftest();
    assert_eq!(guarded["passed"], true, "{guarded:#}");
    // Jobs have sudo, so that it is worth a warning all the same.
    assert!(
        failed(&guarded).contains(&"instance profile as root"),
        "{guarded:#}"
    );
}

#[test]
fn a_refusal_that_everybody_meets_proves_nothing() {
    let machine = Machine::new();
    let rules = "table inet muster_imds_guard {\n chain everybody {\n\
        type filter hook output priority 0;\n meta l4proto tcp reject with tcp reset\n }\n}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    let loaded = machine.load(file.path().to_str().unwrap());
    assert!(loaded.status.success(), "{loaded:?}");
    let report = machine.selftest();
    let name = format!("{IPV4} as runner");
    assert!(failed(&report).contains(&name.as_str()), "{report:#}");
}

#[test]
fn a_container_is_refused_although_its_host_forwards() {
    let machine = Machine::new();
    let container = Namespace::new().unwrap();
    machine.network.cable(&container, 7).unwrap();
    container.ip("route add default via 10.0.7.1").unwrap();
    container.ip("-6 route add default via fd01:7::1").unwrap();
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        machine.network.set(family, "1").unwrap();
    }
    for url in [IPV4, IPV6] {
        let outcome = machine.probe(&container, url);
        assert_eq!(outcome["answered"], 200, "{url} before the guard");
    }
    assert!(machine.load(RULES).status.success());
    for url in [IPV4, IPV6] {
        // At once: a packet that is dropped is not refused, but answered by nobody in time.
        let outcome = machine.probe(&container, url);
        assert_eq!(outcome, "refused", "{url}");
    }
    assert_eq!(machine.refused("nobody"), 2);
    let report = machine.selftest();
    assert_eq!(report["passed"], true, "the host itself: {report:#}");
}

#[test]
fn loading_again_leaves_one_table_and_failing_to_leaves_the_old() {
    let machine = Machine::new();
    for _ in 0..2 {
        assert!(machine.load(RULES).status.success());
    }
    let rules = machine.run(&["nft", "list", "ruleset"]).stdout;
    let chains = String::from_utf8(rules).unwrap().matches("chain ").count();
    assert_eq!(chains, 4);
    machine.remove_user("muster-agent");
    let loaded = machine.load(RULES);
    assert!(
        !loaded.status.success(),
        "the rules name a user that isn't there"
    );
    let rules = machine.run(&["nft", "list", "table", "inet", "muster_imds_guard"]);
    assert!(rules.status.success(), "{rules:?}");
}

/// The shipped look at who has launched the host: what it says, and whether it left its mark.
fn build_host(machine: &Machine) -> (String, bool) {
    let script = "mount -t tmpfs none /run; mount -t tmpfs none /etc; mkdir /etc/muster; \
        echo muster-image-builder >/etc/muster/image-builder-role; \
        bash \"$0\"; test ! -e /run/muster-image-build || echo marked";
    let output = machine.run(&["sh", "-ec", script, BUILD_HOST]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let (said, marked) = match said.strip_suffix("marked\n") {
        Some(said) => (said, true),
        None => (&*said, false),
    };
    (said.trim_end().to_owned(), marked)
}

/// What keeps silent of the service's addresses.
fn silent(machine: &Machine, destination: &str) {
    let rules = format!(
        "table inet silence {{\n chain out {{\n type filter hook output priority 0;\n \
         {destination} drop\n }}\n}}\n"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    let loaded = machine.load(file.path().to_str().unwrap());
    assert!(loaded.status.success(), "{loaded:?}");
}

#[rstest::rstest]
#[case::both("ip daddr 192.0.2.1")]
#[case::ipv6_only("ip daddr 169.254.169.254")]
#[case::ipv4_only("ip6 daddr fd00:ec2::254")]
fn what_has_launched_the_host_is_asked_on_either_address(#[case] unanswered: &str) {
    let machine = Machine::new();
    // To connect to an address that keeps silent takes minutes: the other one is not to wait for it.
    silent(&machine, unanswered);
    let runner = "no instance profile: a runner".to_owned();
    assert_eq!(build_host(&machine), (runner, false));
    let roles = "meta-data/iam/security-credentials/";
    machine.imds.set("i-1", roles, "a-role");
    let runner = "the instance profile is not Image Builder's: a runner".to_owned();
    assert_eq!(build_host(&machine), (runner, false));
    machine
        .imds
        .set("i-1", roles, "a-role\nmuster-image-builder");
    let builder = "the instance profile is Image Builder's: this host is left alone".to_owned();
    assert_eq!(build_host(&machine), (builder, true));
}
