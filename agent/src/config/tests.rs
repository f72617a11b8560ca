use std::collections::BTreeSet;

use rstest::rstest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::fields::Fields;
use super::{Attestation, Mode, RunConfig, parse_run, parse_supervise};
use crate::supervise::watchdog::Limits;

fn document() -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    json!({
        "enroll_url": "https://127.0.0.1:7001",
        "agents_url": "https://coordinator.test:7002",
        "trust_anchors_pem": pem,
        "join_token": "hunter2-hunter2",
        "runner_dir": "/",
        "work_dir": "/tmp",
        "launch": "l-1",
        "max_lifetime_seconds": 3600,
    })
}

#[test]
fn the_smallest_document_is_enough() {
    let RunConfig::Alone { network, host } = parse_run(&document().to_string()).unwrap() else {
        panic!("no supervisor was named")
    };
    assert_eq!(host.coordinator_lost.as_secs(), 600);
    assert_eq!(network.agents.server_name.to_str(), "coordinator.test");
    assert_eq!(network.enroll.server_name.to_str(), "127.0.0.1");
    assert_eq!(network.instance_id, None);
}

#[test]
fn one_server_name_serves_both_listeners() {
    let mut document = document();
    document["server_name"] = "muster.test".into();
    let config = parse_run(&document.to_string()).unwrap();
    let network = config.network();
    assert_eq!(network.enroll.server_name.to_str(), "muster.test");
    assert_eq!(network.agents.server_name.to_str(), "muster.test");
}

#[test]
fn several_authorities_are_trusted_while_one_replaces_another() {
    let mut both = document();
    let texts = [document(), document()].map(|one| one["trust_anchors_pem"].clone());
    let [old, new] = texts.each_ref().map(|text| text.as_str().unwrap());
    both["trust_anchors_pem"] = format!("# old\n{old}\n# new\r\n{new}").into();
    let config = parse_run(&both.to_string()).unwrap();
    let anchors = &config.network().trust_anchors;
    let expected = [old, new].map(|text| CertificateDer::from_pem_slice(text.as_bytes()).unwrap());
    assert_eq!(*anchors, expected);
    let time = std::sync::Arc::new(rustls::time_provider::DefaultTimeProvider);
    crate::tls::client_config(anchors, None, time).unwrap();
    // One that is cut short is no reason to trust the other alone.
    both["trust_anchors_pem"] = format!("{old}{}", &new[..new.len() - 40]).into();
    let error = parse_run(&both.to_string()).unwrap_err().to_string();
    assert!(error.contains("trust_anchors_pem: not PEM"), "{error}");
}

#[test]
fn all_problems_are_named_at_once() {
    let mut document = document();
    document["enroll_url"] = "http://host:1".into();
    document["agents_url"] = 7.into();
    document["runner_dir"] = "relative".into();
    document["work_dir"] = "/nonexistent/dir".into();
    document["max_lifetime_seconds"] = 0.into();
    document["trust_anchors_pem"] = "nothing".into();
    document["metadata_endpoint"] = "ftp://x".into();
    document["runner_environment"] = json!({"RUNNER_PERFLOG": "x", "A=B": "x", "OK": 1});
    document["surprise"] = true.into();
    document.as_object_mut().unwrap().remove("launch");
    let error = parse_run(&document.to_string()).unwrap_err().to_string();
    for named in [
        "enroll_url: \"http://host:1\"; expected https://host:port",
        "agents_url: a number; expected a string",
        "runner_dir: \"relative\"; expected an absolute path",
        "work_dir: \"/nonexistent/dir\"; expected a directory that exists",
        "max_lifetime_seconds: 0;",
        "trust_anchors_pem: no certificate in it",
        "metadata_endpoint: \"ftp://x\"",
        "runner_environment.RUNNER_PERFLOG: set by the agent",
        "runner_environment.A=B: not a name",
        "runner_environment.OK: a number",
        "surprise: not a known field",
        "launch: missing",
    ] {
        assert!(error.contains(named), "{named:?} is not in:\n{error}");
    }
    assert_eq!(error.lines().count(), 13, "{error}");
}

#[test]
fn neither_debug_nor_errors_show_the_token() {
    let mut document = document();
    let config = parse_run(&document.to_string()).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    document["join_token"] = json!(["hunter2-hunter2"]);
    let error = parse_run(&document.to_string()).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn with_a_supervisor_the_host_is_not_ours_to_configure() {
    let mut document = document();
    document["supervisor_socket"] = "/run/muster/supervisor.sock".into();
    let error = parse_run(&document.to_string()).unwrap_err().to_string();
    for field in ["runner_dir", "work_dir", "max_lifetime_seconds"] {
        assert!(
            error.contains(&format!("{field}: not a known field")),
            "{error}"
        );
        document.as_object_mut().unwrap().remove(field);
    }
    let RunConfig::Front { supervisor, .. } = parse_run(&document.to_string()).unwrap() else {
        panic!("a supervisor was named")
    };
    assert_eq!(supervisor.to_str(), Some("/run/muster/supervisor.sock"));
}

#[test]
fn a_supervisor_takes_its_users_and_its_unit_from_the_document() {
    let mut document = json!({
        "runner_dir": "/",
        "work_dir": "/tmp",
        "max_lifetime_seconds": 3600,
        "agent_user": "root",
        "runner_user": "nobody",
    });
    let config = parse_supervise(&document.to_string()).unwrap();
    assert_eq!(config.agent_uid, 0);
    let Mode::Unit(unit) = config.host.mode else {
        panic!("a unit is the default")
    };
    assert_eq!(unit.name, "muster-runner.service");
    assert_eq!(unit.user.name, "nobody");

    document["agent_user"] = "no-such-user".into();
    document["runner_unit"] = "runner".into();
    document["join_token"] = "hunter2-hunter2".into();
    let error = parse_supervise(&document.to_string())
        .unwrap_err()
        .to_string();
    for named in [
        "agent_user: \"no-such-user\"; expected a user of this host",
        "runner_unit: \"runner\"; expected a name that ends with .service, or none",
        "join_token: not a known field",
    ] {
        assert!(error.contains(named), "{named:?} is not in:\n{error}");
    }
}

#[test]
fn an_instance_of_ec2_proves_itself_by_sts() {
    let mut document = document();
    document.as_object_mut().unwrap().remove("join_token");
    document["attestation"] = "aws-sts".into();
    document["metadata_endpoint"] = "http://127.0.0.1:1338/i-1".into();
    let config = parse_run(&document.to_string()).unwrap();
    let Attestation::AwsSts(source) = &config.network().attestation else {
        panic!("no token was given")
    };
    assert_eq!(source.metadata.as_str(), "http://127.0.0.1:1338/i-1");
    assert_eq!(source.instance_profile_role, None);

    document["instance_profile_role"] = "muster-runner".into();
    let config = parse_run(&document.to_string()).unwrap();
    let Attestation::AwsSts(source) = &config.network().attestation else {
        panic!("no token was given")
    };
    assert_eq!(
        source.instance_profile_role.as_deref(),
        Some("muster-runner")
    );
}

#[rstest]
#[case::neither(
    json!({"join_token": null}),
    "attestation: missing; expected \"aws-sts\", or else a join_token"
)]
#[case::both(
    json!({"attestation": "aws-sts"}),
    "join_token: given beside attestation \"aws-sts\"; \
     expected one of join_token and attestation \"aws-sts\""
)]
#[case::no_token(
    json!({"attestation": "join-token", "join_token": null}),
    "join_token: missing; expected a string"
)]
#[case::another(
    json!({"attestation": "gcp"}),
    "attestation: \"gcp\"; expected \"aws-sts\" or \"join-token\""
)]
#[case::role_of_a_token(
    json!({"instance_profile_role": "r"}),
    "instance_profile_role: given beside a join_token; \
     expected none: it goes with the attestation \"aws-sts\""
)]
#[case::role_that_leaves_its_path(
    json!({"attestation": "aws-sts", "join_token": null, "instance_profile_role": "../../x"}),
    "instance_profile_role: \"../../x\"; expected the name of an IAM role, without its path"
)]
fn there_is_one_way_to_prove_it(#[case] change: Value, #[case] problem: &str) {
    let mut document = document();
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            document.as_object_mut().unwrap().remove(name);
        } else {
            document[name] = value.clone();
        }
    }
    let error = parse_run(&document.to_string()).unwrap_err().to_string();
    let expected = format!("the configuration is not usable:\n  {problem}");
    assert_eq!(error, expected);
}

#[test]
fn the_example_for_images_is_a_configuration() {
    let mut example: Value =
        serde_json::from_str(include_str!("../../../ami/agent.example.json")).unwrap();
    example["trust_anchors_pem"] = document()["trust_anchors_pem"].clone();
    let RunConfig::Front { network, .. } = parse_run(&example.to_string()).unwrap() else {
        panic!("a supervisor was named")
    };
    assert!(matches!(network.attestation, Attestation::AwsSts(_)));
    assert_eq!(network.launch, None);
}

const REFERENCE: &str = include_str!("../../../ami/CONFIGURATION.md");

/// The part of the reference below a heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = REFERENCE.split_once(heading).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// The first and the second column of the tables of a part.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut columns = line.strip_prefix("| `")?.split(" | ");
        Some((columns.next()?, columns.next()?))
    })
}

/// The example of a part, for this machine.
fn example(text: &str) -> String {
    let (_, rest) = text.split_once("```json\n").unwrap();
    let (json, _) = rest.split_once("```").unwrap();
    json.replace("/opt/actions-runner", "/")
        .replace("\"/run/muster\"", "\"/tmp\"")
        .replace("\"muster-agent\"", "\"root\"")
        .replace("\"runner\"", "\"nobody\"")
}

fn asked(document: serde_json::Value, read: impl FnOnce(&mut Fields)) -> BTreeSet<String> {
    let serde_json::Value::Object(map) = document else {
        panic!("an object")
    };
    let mut fields = Fields::new(map);
    read(&mut fields);
    fields.asked()
}

#[test]
fn the_reference_names_every_field_that_is_read_and_no_other() {
    let agent = section("## `/etc/muster/agent.json`");
    let supervisor = section("## `/etc/muster/supervisor.json`");
    let (fields, limits) = supervisor.split_once("### `runner_limits`").unwrap();
    let names = |text| -> BTreeSet<String> {
        let named = rows(text).map(|(name, _)| name.split('`').next().unwrap().to_owned());
        named.collect()
    };

    let proven = |how: &str| {
        let document = json!({ "attestation": how });
        asked(document, |fields| drop(super::NetworkConfig::read(fields)))
    };
    let front = &proven("aws-sts") | &proven("join-token");
    let socket = BTreeSet::from(["supervisor_socket".to_owned()]);
    assert_eq!(names(agent), &front | &socket);

    let supervised = |document| asked(document, |fields| drop(super::read_supervise(fields)));
    let read = &supervised(json!({})) | &supervised(json!({"runner_unit": "none"}));
    assert_eq!(names(fields), read);
    let alone = asked(json!({}), |fields| {
        drop(super::HostConfig::read_alone(fields, None));
    });
    let marked = rows(fields).filter(|(name, _)| name.ends_with('²'));
    let marked: BTreeSet<_> = marked
        .map(|(name, _)| name.split('`').next().unwrap())
        .collect();
    assert_eq!(marked, alone.iter().map(String::as_str).collect());

    let mut defaults = Limits::default();
    let defaults = defaults.fields().map(|(name, limit)| {
        let name = format!("{name}`");
        (name, limit.as_secs().to_string())
    });
    let told: Vec<_> = rows(limits)
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect();
    assert_eq!(told, defaults);

    let RunConfig::Front { .. } = parse_run(&example(agent)).unwrap() else {
        panic!("the example has a supervisor")
    };
    let config = parse_supervise(&example(fields)).unwrap();
    assert_eq!(config.host.coordinator_lost.as_secs(), 600);
}
