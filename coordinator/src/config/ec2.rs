//! What an account and a pool say of EC2.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_core::{AccountName, CanaryRules, Market};
use url::Url;

use super::document::{Section, Value, all};
use super::values::{duration, http_url, is_word};
use super::{Ec2Account, canary};
use crate::compute::ec2::{
    Ec2Pool, Ec2Settings, ImageSource, RoleSettings, SpotStrategy, Template, TemplateKey,
};

const SWEEP: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);

/// What the whole file says and accounts need.
pub(super) struct Whole<'a> {
    /// `coordinator.name`.
    pub(super) coordinator: &'a str,
    /// `coordinator.development`.
    pub(super) development: bool,
}

/// Reads what an account says beside its `max_instances`.
pub(super) fn account(
    section: &mut Section<'_>,
    name: &str,
    whole: &Whole<'_>,
    taken: &mut BTreeSet<(String, String)>,
) -> Option<Ec2Account> {
    let account_id = section.required("aws_account_id", |value| {
        let id = word(value, "an AWS account id of twelve digits", 12, |c| {
            c.is_ascii_digit()
        })?;
        if id.len() == 12 {
            return Some(id);
        }
        value.refused("is not an AWS account id of twelve digits")
    });
    let region = section.required("region", |value| {
        word(value, "a region such as \"eu-west-1\"", 32, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
        })
    });
    let role_arn = section.optional("role_arn", |value| {
        let text = value.text()?;
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts[..] {
            ["arn", partition, "iam", "", id, role]
                if partition.starts_with("aws") && id.len() == 12 && role.starts_with("role/") =>
            {
                Some(text.to_owned())
            }
            _ => value.refused(
                "is not the ARN of a role, such as \"arn:aws:iam::123456789012:role/muster\"",
            ),
        }
    });
    let external_id = section.optional("external_id", |value| {
        // https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
        word(value, "an external id", 1_224, |c| {
            c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c)
        })
    });
    if let (Some(None), Some(Some(_))) = (&role_arn, &external_id) {
        section.refuse("external_id is of no use without role_arn");
    }
    if let (Some(Some(arn)), Some(id)) = (&role_arn, &account_id)
        && arn.split(':').nth(4) != Some(id)
    {
        section.refuse("role_arn is of another account than aws_account_id");
    }
    let endpoint = section.optional("endpoint_url", |value| endpoint(value, whole.development));
    let queue_url = section.optional("event_queue_url", |value| {
        queue(value, account_id.as_deref(), region.as_deref())
    });
    let least = if whole.development { TENTH } else { SECOND };
    let sweep = section.default("sweep_interval", SWEEP, duration(least, 10 * SWEEP));
    let instance_role = section.optional("instance_role", |value| {
        word(value, "the name of a role", 64, |c| {
            c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
        })
    });
    let check_private_ip = section.default("check_private_ip", false, Value::boolean);
    if let (Some(id), Some(region)) = (&account_id, &region)
        && !taken.insert((id.clone(), region.clone()))
    {
        section.refuse(format_args!(
            "account {id} in {region} is there twice; what is launched there is looked for by its tag, \
             so each account and region can be there once"
        ));
    }
    let role = match (role_arn?, external_id?) {
        (Some(arn), external_id) => Some(RoleSettings { arn, external_id }),
        (None, _) => None,
    };
    Some(Ec2Account {
        settings: Ec2Settings {
            name: AccountName::from(name),
            account_id: account_id?,
            region: region?,
            role,
            endpoint: endpoint?,
            queue_url: queue_url?.map(String::from),
            coordinator: whole.coordinator.to_owned(),
            pools: BTreeMap::new(),
        },
        sweep_interval: sweep?,
        instance_role: instance_role?,
        check_private_ip: check_private_ip?,
    })
}

/// In place of all of AWS, STS included: what answers there says who instances are, of all accounts.
fn endpoint(value: &Value<'_>, development: bool) -> Option<Url> {
    let url = http_url(value)?;
    if !development {
        return value.refused(
            "would say who instances are in place of AWS; it is for tests, with coordinator.development",
        );
    }
    Some(url)
}

/// The URL of a queue, which must be of the account and in the region that its events are of
/// (<https://docs.aws.amazon.com/general/latest/gr/sqs-service.html>).
fn queue(value: &Value<'_>, account_id: Option<&str>, region: Option<&str>) -> Option<Url> {
    let url = http_url(value)?;
    let path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    let [account, _] = path[..] else {
        return value.refused(
            "is not the URL of a queue, such as \
             \"https://sqs.eu-west-1.amazonaws.com/123456789012/muster-events\"",
        );
    };
    if account_id.is_some_and(|id| id != account) {
        return value.refused("is a queue of another account than aws_account_id");
    }
    let mut parts = url.host_str().unwrap_or_default().split('.');
    let named = parts.find(|part| looks_like_region(part));
    if let (Some(named), Some(region)) = (named, region)
        && named != region
    {
        return value.refused(format_args!(
            "is a queue in {named}; the account's region is {region}"
        ));
    }
    Some(url)
}

/// Whether a part of a host's name can be a region: words and a number.
fn looks_like_region(part: &str) -> bool {
    let mut words: Vec<&str> = part.split('-').collect();
    let number = words.pop().unwrap_or_default();
    let is = |text: &str, of: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(of);
    words.len() >= 2
        && words.iter().all(|word| is(word, u8::is_ascii_lowercase))
        && is(number, u8::is_ascii_digit)
}

/// Whether AWS has a region of this name, as far as this version knows (`endpoint_lib.rs` of the crate
/// `aws-sdk-sts` 1.124).
pub(crate) fn is_known_region(name: &str) -> bool {
    REGIONS.binary_search(&name).is_ok()
}

/// In their order.
const REGIONS: [&str; 46] = [
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eu-central-1",
    "eu-central-2",
    "eu-isoe-west-1",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eusc-de-east-1",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-iso-east-1",
    "us-iso-west-1",
    "us-isob-east-1",
    "us-isob-west-1",
    "us-isof-east-1",
    "us-isof-south-1",
    "us-west-1",
    "us-west-2",
];

/// Reads `[pool.ec2]`.
pub(super) fn pool(mut section: Section<'_>) -> Option<(Ec2Pool, Option<CanaryRules>)> {
    let key = section.required("launch_template", |value| {
        let text = word(value, "the id or name of a launch template", 128, |c| {
            c.is_ascii_alphanumeric() || "()./_-".contains(c)
        })?;
        Some(if text.starts_with("lt-") {
            TemplateKey::Id(text)
        } else {
            TemplateKey::Name(text)
        })
    });
    let version =
        section.default(
            "launch_template_version",
            "$Latest".to_owned(),
            |value| match value.text()? {
                text @ ("$Default" | "$Latest") => Some(text.to_owned()),
                text if is_word(text, 9, |c| c.is_ascii_digit()) => Some(text.to_owned()),
                _ => value
                    .refused("is not a version: a number in quotes, \"$Default\" or \"$Latest\""),
            },
        );
    let image = section.optional("image", image_id);
    let parameter = section.optional("image_parameter", parameter);
    let subnets = section.required("subnets", |value| list(value, |value| id(value, "subnet-")));
    let types = section.required("types", |value| list(value, instance_type));
    let market = section.default("market", Market::Spot, |value| match value.text()? {
        "spot" => Some(Market::Spot),
        "on-demand" => Some(Market::OnDemand),
        _ => value.refused("is neither \"spot\" nor \"on-demand\""),
    });
    let fallback = section.default("on_demand_fallback", true, Value::boolean);
    let strategy = section.default(
        "spot_strategy",
        SpotStrategy::PriceCapacityOptimized,
        |value| match value.text()? {
            "price-capacity-optimized" => Some(SpotStrategy::PriceCapacityOptimized),
            "capacity-optimized" => Some(SpotStrategy::CapacityOptimized),
            _ => {
                value.refused("is neither \"price-capacity-optimized\" nor \"capacity-optimized\"")
            }
        },
    );
    let image = match (image, parameter) {
        (Some(Some(_)), Some(Some(_))) => {
            section.refuse("image and image_parameter are both there; one is needed, or neither");
            None
        }
        (Some(image), Some(parameter)) => source(image, parameter),
        _ => None,
    };
    let canary = section.optional("canary", |value| canary::read(value, image.as_ref()));
    section.finish();
    let (canary, rules) = canary?.unzip();
    let pool = Ec2Pool {
        template: Template {
            key: key?,
            version: version?,
        },
        image: image?,
        canary,
        subnets: subnets?,
        types: types?,
        market: market?,
        on_demand_fallback: fallback?,
        strategy: strategy?,
    };
    Some((pool, rules))
}

pub(super) fn image_id(value: &Value<'_>) -> Option<String> {
    id(value, "ami-")
}

pub(super) fn parameter(value: &Value<'_>) -> Option<String> {
    word(value, "the name of an SSM parameter", 1_011, |c| {
        c.is_ascii_alphanumeric() || "/._-".contains(c)
    })
}

pub(super) fn source(image: Option<String>, parameter: Option<String>) -> Option<ImageSource> {
    Some(match (image, parameter) {
        (Some(id), _) => ImageSource::Id(id),
        (None, Some(name)) => ImageSource::Parameter(name),
        (None, None) => ImageSource::Template,
    })
}

fn list(value: &Value<'_>, read: impl FnMut(&Value<'_>) -> Option<String>) -> Option<Vec<String>> {
    let list = all(&value.list()?, read)?;
    if list.is_empty() {
        return value.refused("is empty; at least one is needed");
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = list.iter().find(|text| !seen.insert(text.as_str())) {
        return value.refused(format_args!("has {twice} twice"));
    }
    Some(list)
}

/// An id of this kind: eight or seventeen hexadecimal digits after its prefix.
fn id(value: &Value<'_>, prefix: &str) -> Option<String> {
    let text = value.text()?;
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if matches!(digits.len(), 8 | 17) && digits.chars().all(hexadecimal) {
        return Some(text.to_owned());
    }
    value.refused(format_args!(
        "is not an id such as \"{prefix}0123456789abcdef0\""
    ))
}

pub(super) fn instance_type(value: &Value<'_>) -> Option<String> {
    word(value, "an instance type such as \"c7i.large\"", 64, |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c)
    })
}

fn word(
    value: &Value<'_>,
    expected: &str,
    most: usize,
    allowed: fn(char) -> bool,
) -> Option<String> {
    match value.text()? {
        text if is_word(text, most, allowed) => Some(text.to_owned()),
        _ => value.refused(format_args!("is not {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_found_and_what_is_none_is_not() {
        assert!(REGIONS.is_sorted());
        assert!(REGIONS.iter().all(|name| is_known_region(name)));
        assert!(REGIONS.iter().all(|name| looks_like_region(name)));
        assert!(!is_known_region("eu-west-9"));
        for other in [
            "sqs",
            "vpce-0123abcd-0123",
            "127",
            "amazonaws",
            "eu-west",
            "",
        ] {
            assert!(!looks_like_region(other), "{other}");
        }
    }
}
