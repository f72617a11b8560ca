//! What accounts and pools say of EC2, good and bad.

use std::time::Duration;

use muster_core::{CanaryRules, PoolName};
use rstest::rstest;

use super::tests::{errors, parse};
use crate::compute::ec2::ImageSource;

const ON_EC2: &str = r#"
[github]
app_id = 12345
private_key_file = "app.pem"
webhook_secret_files = ["webhook.secret"]

[accounts.main]
max_instances = 4
aws_account_id = "123456789012"
region = "eu-west-1"

[[pool]]
name = "linux"
scope = { organization = "octo-org" }
labels = ["self-hosted"]
account = "main"
max = 4

[pool.ec2]
launch_template = "lt-0123456789abcdef0"
subnets = ["subnet-0123456789abcdef0"]
types = ["m7i.large"]
"#;

#[test]
fn a_pool_on_ec2_needs_little() {
    let config = parse(ON_EC2).unwrap();
    let [account] = &config.ec2[..] else {
        panic!("{:?}", config.ec2);
    };
    assert_eq!(account.settings.coordinator, "muster");
    let pool = &account.settings.pools[&PoolName::from("linux")];
    assert_eq!(pool.market, muster_core::Market::Spot);
    assert!(pool.on_demand_fallback);
    assert_eq!(
        config.sweep_interval(&account.settings.name),
        Duration::from_secs(60)
    );
}

#[test]
fn a_pool_may_have_a_canary_by_id_or_parameter() {
    let with = |canary: &str| {
        let line = format!("canary = {{ {canary} }}\ntypes =");
        let config = parse(&ON_EC2.replacen("types =", &line, 1)).unwrap();
        let pool = config.ec2[0].settings.pools[&PoolName::from("linux")].clone();
        (pool.canary, config.fleet.pools[0].canary)
    };
    let usual = CanaryRules {
        share: 10,
        least: 20,
        margin: 10,
    };
    assert_eq!(
        with("image = \"ami-0123456789abcdef0\""),
        (
            Some(ImageSource::Id("ami-0123456789abcdef0".to_owned())),
            Some(usual)
        )
    );
    let own = CanaryRules {
        share: 5,
        least: 50,
        margin: 3,
    };
    assert_eq!(
        with(
            "image_parameter = \"/muster/ami/next\", share = \"5%\", least = 50, rollback_at = \"3%\""
        ),
        (
            Some(ImageSource::Parameter("/muster/ami/next".to_owned())),
            Some(own)
        )
    );
    assert_eq!(parse(ON_EC2).unwrap().fleet.pools[0].canary, None);
}

#[rstest]
#[case::account_id(
    "123456789012\"",
    "12345678901\"",
    "9:18: [accounts.main]: aws_account_id: \"12345678901\" is not an AWS account id of twelve digits"
)]
#[case::region(
    "eu-west-1",
    "EU",
    "10:10: [accounts.main]: region: \"EU\" is not a region such as \"eu-west-1\""
)]
#[case::role(
    "region =",
    "role_arn = \"arn:aws:iam::999999999999:role/x\"\nregion =",
    "7:1: [accounts.main]: role_arn is of another account than aws_account_id"
)]
#[case::no_role(
    "region =",
    "external_id = \"x\"\nregion =",
    "7:1: [accounts.main]: external_id is of no use without role_arn"
)]
#[case::endpoint(
    "region =",
    "endpoint_url = \"https://192.0.2.1\"\nregion =",
    "10:16: [accounts.main]: endpoint_url: \"https://192.0.2.1\" would say who instances are in place of AWS; it is for tests, with coordinator.development"
)]
#[case::queue_of_no_account(
    "region =",
    "event_queue_url = \"https://sqs.eu-west-1.amazonaws.com/muster-events\"\nregion =",
    "10:19: [accounts.main]: event_queue_url: \"https://sqs.eu-west-1.amazonaws.com/muster-events\" is not the URL of a queue"
)]
#[case::queue_of_another_account(
    "region =",
    "event_queue_url = \"https://sqs.eu-west-1.amazonaws.com/999999999999/muster\"\nregion =",
    "10:19: [accounts.main]: event_queue_url: \"https://sqs.eu-west-1.amazonaws.com/999999999999/muster\" is a queue of another account than aws_account_id"
)]
#[case::queue_in_another_region(
    "region =",
    "event_queue_url = \"https://sqs.us-east-1.amazonaws.com/123456789012/muster\"\nregion =",
    "10:19: [accounts.main]: event_queue_url: \"https://sqs.us-east-1.amazonaws.com/123456789012/muster\" is a queue in us-east-1; the account's region is eu-west-1"
)]
#[case::twice(
    "[[pool]]",
    "[accounts.other]\nmax_instances = 1\naws_account_id = \"123456789012\"\nregion = \"eu-west-1\"\n[[pool]]",
    "12:1: [accounts.other]: account 123456789012 in eu-west-1 is there twice; what is launched there is looked for by its tag, so each account and region can be there once"
)]
#[case::no_ec2(
    "[pool.ec2]",
    "[pool.limits]\nboot = \"1m\"\n[telemetry]",
    "12:1: pool \"linux\": ec2 is missing: what is to be launched"
)]
#[case::subnet(
    "subnet-0123456789abcdef0",
    "subnet-1",
    "21:12: pool \"linux\": ec2: subnets: \"subnet-1\" is not an id such as \"subnet-0123456789abcdef0\""
)]
#[case::no_subnet(
    "[\"subnet-0123456789abcdef0\"]",
    "[]",
    "21:11: pool \"linux\": ec2: subnets: [] is empty; at least one is needed"
)]
#[case::types_twice(
    "[\"m7i.large\"]",
    "[\"m7i.large\", \"m7i.large\"]",
    "22:9: pool \"linux\": ec2: types: [\"m7i.large\", \"m7i.large\"] has m7i.large twice"
)]
#[case::two_images(
    "types =",
    "image = \"ami-0123456789abcdef0\"\nimage_parameter = \"/a\"\ntypes =",
    "19:1: pool \"linux\": ec2: image and image_parameter are both there; one is needed, or neither"
)]
#[case::no_canary(
    "types =",
    "canary = {}\ntypes =",
    "22:10: pool \"linux\": ec2: canary: one of image and image_parameter is needed"
)]
#[case::two_canaries(
    "types =",
    "canary = { image = \"ami-0123456789abcdef0\", image_parameter = \"/a\" }\ntypes =",
    "22:10: pool \"linux\": ec2: canary: one of image and image_parameter is needed"
)]
#[case::canary_that_is_the_own_image(
    "types =",
    "image_parameter = \"/a\"\ncanary = { image_parameter = \"/a\" }\ntypes =",
    "23:10: pool \"linux\": ec2: canary: is the pool's own image; a canary is another one"
)]
#[case::share(
    "types =",
    "canary = { image_parameter = \"/a\", share = \"51%\" }\ntypes =",
    "22:44: pool \"linux\": ec2: canary: share: \"51%\" is not between 1% and 50%"
)]
#[case::share_that_is_none(
    "types =",
    "canary = { image_parameter = \"/a\", share = \"0.1\" }\ntypes =",
    "22:44: pool \"linux\": ec2: canary: share: \"0.1\" is not a part of a hundred such as \"10%\""
)]
#[case::unknown_key_of_a_canary(
    "types =",
    "canary = { image_parameter = \"/a\", rolback_at = \"5%\" }\ntypes =",
    "canary: rolback_at is not a known key; did you mean rollback_at?"
)]
#[case::market(
    "types =",
    "market = \"cheap\"\ntypes =",
    "22:10: pool \"linux\": ec2: market: \"cheap\" is neither \"spot\" nor \"on-demand\""
)]
#[case::type_not_launched(
    "[pool.ec2]",
    "allow = { type = [\"c7i.large\"] }\n[pool.ec2]",
    "12:1: pool \"linux\": allow: type c7i.large is not one of ec2: types"
)]
fn what_is_wrong_on_ec2_is_named(#[case] old: &str, #[case] new: &str, #[case] expected: &str) {
    assert!(ON_EC2.contains(old), "{old}");
    let told = errors(&ON_EC2.replacen(old, new, 1));
    assert!(told.contains(expected), "{told}");
}

#[rstest]
#[case::usual("https://sqs.eu-west-1.amazonaws.com/123456789012/muster-events")]
#[case::old("https://eu-west-1.queue.amazonaws.com/123456789012/muster-events")]
#[case::dual_stack("https://sqs.eu-west-1.api.aws/123456789012/muster-events")]
#[case::private("https://vpce-0123abcd-0123.sqs.eu-west-1.vpce.amazonaws.com/123456789012/muster")]
fn a_queue_of_the_account_and_region_is_good(#[case] url: &str) {
    let line = format!("event_queue_url = \"{url}\"\nregion =");
    let config = parse(&ON_EC2.replacen("region =", &line, 1)).unwrap();
    assert_eq!(config.ec2[0].settings.queue_url.as_deref(), Some(url));
}

/// Whoever answers in place of STS says who instances are, whichever account they are of.
#[test]
fn tests_may_replace_aws_and_then_for_all_accounts_alike() {
    let elsewhere = ON_EC2.replacen("[github]", "[coordinator]\ndevelopment = true\n[github]", 1);
    let elsewhere = elsewhere.replacen(
        "region =",
        "endpoint_url = \"http://192.0.2.1\"\nregion =",
        1,
    );
    parse(&elsewhere).unwrap();
    let other = "[accounts.other]\nmax_instances = 1\naws_account_id = \"210987654321\"\n\
                 region = \"eu-west-1\"\n[[pool]]";
    let told = errors(&elsewhere.replacen("[[pool]]", other, 1));
    let expected = "[accounts.other]: endpoint_url is another than account main's; it stands for STS too, \
                    which all share";
    assert!(told.contains(expected), "{told}");
}
