//! Whole files, good and bad.

mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_core::{AccountName, PoolName, Scope};
use rstest::rstest;
use secrecy::ExposeSecret as _;

use super::{Config, ConfigErrors, SecretSource, verify_files};
use crate::aws::Given;
use crate::secrets::Reader;

const EXAMPLE: &str = include_str!("../../muster.example.toml");

const SMALL: &str = r#"
[github]
app_id = 12345
private_key_file = "app.pem"
webhook_secret_files = ["webhook.secret"]

[accounts.local]
max_instances = 4

[local]
runner_dir = "runner"

[[pool]]
name = "linux"
scope = { organization = "octo-org" }
labels = ["self-hosted", "Linux"]
account = "local"
max = 4
"#;

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/muster/muster.toml"))
}

pub(super) fn errors(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The small file with one part replaced; the part must be there.
fn with(old: &str, new: &str) -> String {
    assert!(SMALL.contains(old), "{old}");
    SMALL.replace(old, new)
}

/// The small file with more at its end.
pub(super) fn small_with(more: &str) -> String {
    format!("{SMALL}\n{more}\n")
}

#[test]
fn the_example_is_good_and_shows_the_defaults() {
    let example = parse(EXAMPLE).unwrap();
    assert_eq!(example.fleet.pools.len(), 3);
    let small = parse(SMALL).unwrap();
    assert_eq!(example.coordinator, small.coordinator);
    assert_eq!(example.listen, small.listen);
    assert_eq!(example.identity, small.identity);
    assert_eq!(example.store, small.store);
    assert_eq!(example.telemetry, small.telemetry);
    assert_eq!(example.github.api_url, small.github.api_url);
    assert_eq!(example.fleet.pools[0].limits, small.fleet.pools[0].limits);
}

#[test]
fn the_least_file_gets_defaults_and_its_paths_start_at_its_directory() {
    let config = parse(SMALL).unwrap();
    assert_eq!(config.github.app_id, "12345");
    assert_eq!(
        config.github.private_key,
        SecretSource::File(PathBuf::from("/etc/muster/app.pem"))
    );
    assert_eq!(
        config.github.redeliver_interval,
        Some(Duration::from_secs(60))
    );
    assert_eq!(config.github.registrations_per_minute, 180);
    let local = config.local.unwrap();
    assert_eq!(local.runner_dir, PathBuf::from("/etc/muster/runner"));
    assert_eq!(
        local.instances_dir,
        PathBuf::from("/var/lib/muster/instances")
    );
    assert!(local.agent_binary.ends_with("muster-agent"));
    assert_eq!(config.listen.advertise_host, "localhost");
    assert_eq!(config.fleet.accounts[&AccountName::from("local")], 4);
    let pool = &config.fleet.pools[0];
    assert_eq!(pool.name, PoolName::from("linux"));
    assert_eq!(pool.scope, Scope::Organization("octo-org".to_owned()));
    assert_eq!(pool.runner_group, "Default");
    assert!(pool.labels.contains("linux"));
    assert_eq!(pool.min_idle, 0);
    assert!(!pool.public_repositories);
}

#[test]
fn ten_errors_are_told_at_once() {
    insta::assert_snapshot!(errors(
        r#"
colour = "green"

[coordinator]
heartbeat_interval = "5 seconds"

[listen]
web = "localhost:7440"

[github]
api_url = "http://github.example.com/api/v3"
app_id = 12345
private_key_file = "app.pem"
webhook_secret_files = []
proxy = "http://user:hunter2@proxy:3128"

[identity]
agent_certificate_ttl = "2h"

[accounts.local]
max_instances = 20

[local]
runner_dir = "/opt/actions-runner"

[[pool]]
name = "linux"
scope = { organization = "octo-org" }
lables = ["self-hosted"]
account = "local"
max = 0

[[pool]]
name = "linux"
scope = { organization = "octo-org", enterprise = "octo" }
labels = ["self-hosted", "Self-Hosted", "muster/cpu=2", 3]
account = "local"
min_idle = "many"
max = 4
limits = { boot = "5m", strat = "6m" }
"#
    ));
}

#[test]
fn a_wrong_value_does_not_hide_an_unknown_key_beside_it() {
    for (old, new) in [
        ("max = 4", "max = 4\nlimits = { boot = 3, strat = \"6m\" }"),
        ("max = 4", "max = 4\nallow = { cpu = 3, strat = \"6m\" }"),
        (
            "{ organization = \"octo-org\" }",
            "{ organization = 3, strat = \"6m\" }",
        ),
        ("runner_dir = \"runner\"", "runner_dir = 3\nstrat = 3"),
        ("app_id = 12345", "app_id = -1\nstrat = 3"),
        ("max = 4", "max = 0\nstrat = 3"),
    ] {
        let errors = errors(&with(old, new));
        assert_eq!(errors.lines().count(), 2, "{errors}");
        assert!(errors.contains("strat is not a known key"), "{errors}");
    }
}

#[test]
fn a_file_with_nothing_in_it_is_told_what_it_lacks() {
    insta::assert_snapshot!(errors(""));
}

#[test]
fn every_syntax_error_is_told_with_its_place() {
    insta::assert_snapshot!(errors(
        "[github\napp_id = \n[listen]\nweb = \"127.0.0.1:1\nx = 1 1\n"
    ));
}

#[rstest]
#[case::min_idle_over_max(
    "max = 4",
    "max = 4\nmin_idle = 5",
    "13:1: pool \"linux\": min_idle 5 is more than max 4"
)]
#[case::no_such_account(
    "account = \"local\"",
    "account = \"aws\"",
    "13:1: pool \"linux\": account: there is no [accounts.aws]"
)]
#[case::idle_sum(
    "max = 4",
    "max = 9\nmin_idle = 5",
    "13:1: pool \"linux\": with this pool min_idle comes to 5 in the account \"local\", whose max_instances is 4"
)]
#[case::other_account(
    "[accounts.local]",
    "[accounts.Aws]",
    "7:1: [accounts]: Aws: the name of an account is made of 1 to 32 of a-z, 0-9 and -"
)]
#[case::no_local(
    "[local]\nrunner_dir = \"runner\"",
    "",
    "1:1: [local] is missing; a pool launches in the account \"local\""
)]
#[case::pool_name(
    "\"linux\"",
    "\"Linux\"",
    "14:8: [[pool]]: name: \"Linux\" is not made of 1 to 32 of a-z, 0-9 and -"
)]
#[case::repository(
    "{ organization = \"octo-org\" }",
    "{ repository = \"octo\" }",
    "15:24: pool \"linux\": scope: repository: \"octo\" is not a repository such as \"octo-org/octo-repo\""
)]
#[case::no_scope(
    "{ organization = \"octo-org\" }",
    "{}",
    "15:9: pool \"linux\": scope: one of organization, repository and enterprise is needed"
)]
#[case::no_labels(
    "[\"self-hosted\", \"Linux\"]",
    "[]",
    "16:10: pool \"linux\": labels: [] has no label; at least one is needed"
)]
#[case::wrong_type(
    "max = 4",
    "max = \"4\"",
    "18:7: pool \"linux\": max: \"4\" is not a number"
)]
#[case::negative(
    "max = 4",
    "max = -4",
    "18:7: pool \"linux\": max: -4 is not between 1 and 10000"
)]
#[case::huge(
    "max = 4",
    "max = 99999999999999999999",
    "18:7: pool \"linux\": max: 99999999999999999999 is not between 1 and 10000"
)]
#[case::lifetime(
    "max = 4",
    "max = 4\nlimits = { lifetime = \"11m\" }",
    "19:10: pool \"linux\": limits: lifetime leaves no time after boot and start"
)]
#[case::silence(
    "max = 4",
    "max = 4\nlimits = { silence = \"9s\" }",
    "13:1: pool \"linux\": limits: silence is less than twice heartbeat_interval of [coordinator]"
)]
#[case::one_ca_file(
    "[github]",
    "[identity]\nca_key_file = \"k\"\n[github]",
    "2:1: [identity]: the certificate and the key of the authority go together; one is missing"
)]
#[case::no_proxy(
    "[accounts.local]",
    "proxy_credentials_file = \"p\"\n[accounts.local]",
    "2:1: [github]: proxy_credentials_file is of no use without proxy"
)]
#[case::same_port(
    "[github]",
    "[listen]\nweb = \"127.0.0.1:7441\"\n[github]",
    "2:1: [listen]: enroll: 127.0.0.1:7441 is the address of another listener too"
)]
#[case::server_name(
    "[github]",
    "[listen]\nserver_names = [\"a b\"]\n[github]",
    "3:17: [listen]: server_names: \"a b\" is not a host name or an IP address"
)]
#[case::namespace(
    "[github]",
    "[telemetry]\nemf_namespace = \"AWS/EC2\"\n[github]",
    "3:17: [telemetry]: emf_namespace: \"AWS/EC2\" is not a CloudWatch namespace of one's own"
)]
#[case::short_ttl(
    "[github]",
    "[identity]\nagent_certificate_ttl = \"4m\"\n[github]",
    "3:25: [identity]: agent_certificate_ttl: \"4m\" is not between 5m and 1h"
)]
#[case::endpoint(
    "[local]",
    "[local]\nmetadata_endpoint = \"http://h/{instance}\"",
    "11:21: [local]: metadata_endpoint: \"http://h/{instance}\" is not an http:// URL, with {instance_id} where the instance's id goes"
)]
#[case::variable(
    "[local]",
    "[local]\nenvironment = { \"A-B\" = \"x\" }",
    "11:25: [local]: environment: A-B: is not the name of a variable"
)]
#[case::not_a_table(
    "[local]\nrunner_dir = \"runner\"",
    "[local]\nrunner_dir = \"runner\"\nenvironment = 3",
    "12:15: [local]: environment: 3 is not a table"
)]
fn each_error_is_named_with_its_place(
    #[case] old: &str,
    #[case] new: &str,
    #[case] expected: &str,
) {
    let expected = format!("/etc/muster/muster.toml:{expected}");
    let errors = errors(&with(old, new));
    assert!(errors.lines().any(|line| line == expected), "{errors}");
}

#[rstest]
#[case::proxy(
    "[accounts.local]",
    "proxy = \"http://user:hunter2@proxy\"\n[accounts.local]"
)]
#[case::broken_proxy("[accounts.local]", "proxy = \"user:hunter2@proxy\"\n[accounts.local]")]
#[case::pasted_key("\"app.pem\"", "'''-----BEGIN KEY-----\nhunter2\n'''")]
#[case::unknown_key("[accounts.local]", "webhook_secret = \"hunter2\"\n[accounts.local]")]
#[case::store_url("[local]", "[store]\nurl = \"postgres://u:hunter2@db/m\"\n[local]")]
#[case::url_for_its_file(
    "[local]",
    "[store]\nurl_file = \"postgres://u:hunter2@db/m\"\n[local]"
)]
#[case::url_for_its_parameter(
    "[local]",
    "[store]\nurl_parameter = \"postgres://u:hunter2@db/m\"\n[secrets]\nregion = \"eu-west-1\"\n[local]"
)]
#[case::half_a_url("[local]", "[store]\nurl_file = \"u:hunter2@db/m\"\n[local]")]
#[case::absolute_url("[local]", "[store]\nurl_file = \"//u://hunter2@db/m\"\n[local]")]
#[case::credentials_for_their_file(
    "[accounts.local]",
    "proxy = \"http://proxy\"\nproxy_credentials_file = \"user:hunter2\"\n[accounts.local]"
)]
#[case::webhook_secret_for_its_file("\"webhook.secret\"", "\"hunter2@\"")]
#[case::webhook_secret_for_its_parameter(
    "webhook_secret_files = [\"webhook.secret\"]",
    "webhook_secret_parameters = [\"hunter2+/=\"]"
)]
#[case::key_for_its_file(
    "[local]",
    "[identity]\nca_certificate_file = \"ca.pem\"\nca_key_file = \"key:hunter2\"\n[local]"
)]
fn no_error_repeats_a_secret(#[case] old: &str, #[case] new: &str) {
    let errors = match parse(&with(old, new)) {
        Err(errors) => errors.to_string(),
        // Those who can't be told from a path go on to be looked for.
        Ok(config) => {
            let errors = verify_files(&config).unwrap_err();
            errors.iter().map(ToString::to_string).collect()
        }
    };
    assert!(!errors.is_empty());
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn an_absolute_path_of_a_secret_may_have_any_character() {
    let path = "/run/credentials/muster@prod.service/app key:1.pem";
    let config = parse(&with("app.pem", path)).unwrap();
    let source = SecretSource::File(path.into());
    assert_eq!(config.github.private_key, source);
}

#[test]
fn development_allows_certificates_for_seconds() {
    let text = with(
        "[github]",
        "[coordinator]\ndevelopment = true\n[identity]\nagent_certificate_ttl = \"1s\"\n[github]",
    );
    let config = parse(&text).unwrap();
    let ttl = config.identity.agent_certificate_ttl;
    assert_eq!(ttl, Duration::from_secs(1));
}

#[test]
fn plain_http_is_for_this_machine_only() {
    let here = with(
        "[accounts",
        "api_url = \"http://127.0.0.1:9000/api\"\n[accounts",
    );
    assert!(parse(&here).is_ok());
    let there = with("[accounts", "api_url = \"http://192.0.2.1/api\"\n[accounts");
    assert!(errors(&there).contains("sends tokens without TLS"));
}

#[test]
fn an_interval_of_zero_switches_redelivery_off() {
    let text = with("[accounts", "redeliver_interval = \"0s\"\n[accounts");
    assert_eq!(parse(&text).unwrap().github.redeliver_interval, None);
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_the_whole() {
    let error = Config::load(Path::new("/nonexistent/muster.toml")).unwrap_err();
    assert_eq!(error.problems()[0].at, None);
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/muster.toml: can't be read: ")
    );
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(at in 0..SMALL.len(), junk in "[\\[\\]{}=\"'\n a1.#]{0,3}") {
        let mut text = SMALL.to_owned();
        text.insert_str(at, &junk);
        if let Err(errors) = parse(&text) {
            proptest::prop_assert!(!errors.problems().is_empty());
        }
    }
}

#[test]
fn a_pool_with_a_wrong_field_is_still_checked_against_the_rest() {
    let told = errors(&with("max = 4", "max = 4\nmin_idle = 9\nrunner_group = 7"));
    assert!(told.contains("min_idle 9 is more than max 4"), "{told}");
    assert!(told.contains("runner_group"), "{told}");
}
