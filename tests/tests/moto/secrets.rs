//! The coordinator's secrets, under the policy that is for them.

use std::path::Path;

use muster_coordinator::compute::ec2::Given;
use muster_coordinator::config::Config;
use muster_coordinator::secrets::{Reader, SecretError, Secrets};
use rstest::rstest;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::allowed::all_of_it_was_used;
use crate::world::{ACCOUNT, HERE, REGION, World};

const NAMES: [&str; 5] = [
    "/muster/github/private-key",
    "/muster/github/webhook-secret",
    "/muster/ca/certificate",
    "/muster/ca/key",
    "/muster/database-url",
];

async fn put(world: &World, name: &str) {
    let secret = json!({ "Name": name, "Type": "SecureString", "Value": format!("{name}'s") });
    world.moto.call(HERE, "ssm", "put_parameter", secret).await;
}

/// Reads the secrets from these parameters, as the coordinator does.
async fn read(world: &World, names: [&str; 5]) -> Result<Secrets, Vec<SecretError>> {
    let [key, webhook, certificate, ca_key, store] = names;
    let text = format!(
        r#"
[coordinator]
development = true
[github]
app_id = 1
private_key_parameter = "{key}"
webhook_secret_parameters = ["{webhook}"]
[identity]
ca_certificate_parameter = "{certificate}"
ca_key_parameter = "{ca_key}"
[store]
url_parameter = "{store}"
[secrets]
region = "{REGION}"
endpoint_url = "{url}"
[accounts.local]
max_instances = 1
[local]
runner_dir = "runner"
[[pool]]
name = "linux"
scope = {{ organization = "octo-org" }}
labels = ["self-hosted"]
account = "local"
max = 1
"#,
        url = world.moto.url()
    );
    let config = Config::parse(&text, Path::new("muster.toml")).unwrap();
    let given = Given {
        http: Some(world.host.client()),
        ..Given::default()
    };
    Reader::new(&config, given).await.read().await
}

#[tokio::test]
async fn the_policy_for_secrets_allows_them_and_no_more_than_is_read() {
    let world = World::start().await;
    for name in NAMES {
        put(&world, name).await;
    }
    let secrets = read(&world, NAMES).await.unwrap();
    let ca = secrets.ca.unwrap();
    let texts = [
        secrets.app_key,
        secrets.webhook[0].clone(),
        ca.certificate,
        ca.key,
        secrets.store_url.unwrap(),
    ];
    for (text, name) in texts.iter().zip(NAMES) {
        assert_eq!(text.expose_secret(), format!("{name}'s"));
    }
    let decisions = world.moto.decisions().await;
    assert!(decisions.iter().all(|one| one.allowed), "{decisions:#?}");
    assert!(
        decisions
            .iter()
            .all(|one| one.action == "ssm:GetParameters")
    );
    let all: Vec<_> = decisions.iter().collect();
    all_of_it_was_used("coordinator-secrets.json", ACCOUNT, &all);
    all_of_it_was_used("coordinator-database.json", ACCOUNT, &all);
}

#[rstest]
#[case::anothers("/somebody/github/private-key")]
#[case::of_ours_that_is_no_secret("/muster/other/private-key")]
#[case::similar("/muster/githubs/private-key")]
#[tokio::test]
async fn the_policy_for_secrets_allows_no_other_parameter(#[case] other: &str) {
    let world = World::start().await;
    for name in NAMES.into_iter().chain([other]) {
        put(&world, name).await;
    }
    let [_, webhook, certificate, key, store] = NAMES;
    let errors = read(&world, [other, webhook, certificate, key, store]).await;
    let errors = errors.unwrap_err();
    assert!(!errors[0].passes, "nobody but an installer can mend it");
    let told = errors[0].to_string();
    assert!(
        told.contains("AccessDenied") && told.contains(other),
        "{told}"
    );
}
