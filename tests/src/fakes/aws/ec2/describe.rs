//! The calls that only look.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::instance::Instance;
use super::types::{self, InstanceType, TYPES};
use super::{Image, Subnet, region};
use crate::fakes::aws::dispatch::{typed, unsupported};
use crate::fakes::aws::error::AwsError;
use crate::fakes::aws::shared::{Admitted, State};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Request {
    #[serde(default)]
    instance_ids: Vec<String>,
    #[serde(default)]
    subnet_ids: Vec<String>,
    #[serde(default)]
    instance_types: Vec<String>,
    #[serde(default)]
    filters: Vec<Filter>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Filter {
    name: String,
    #[serde(default)]
    values: Vec<String>,
}

impl Filter {
    /// Whether one of the filter's values fits one of the item's; an error if the item has no such
    /// thing at all.
    fn fits<T>(
        &self,
        item: &T,
        values: fn(&T, &str) -> Option<Vec<String>>,
    ) -> Result<bool, AwsError> {
        let had = values(item, &self.name)
            .ok_or_else(|| unsupported(&format!("the filter {}", self.name)))?;
        Ok(had
            .iter()
            .any(|had| self.values.iter().any(|wanted| glob(wanted, had))))
    }
}

/// `*` is any text, `?` any character.
fn glob(pattern: &str, text: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = letters.as_str();
            glob(rest, text) || {
                let mut shorter = text.chars();
                shorter.next().is_some() && glob(pattern, shorter.as_str())
            }
        }
        Some(letter) => {
            let mut below = text.chars();
            below
                .next()
                .is_some_and(|had| letter == '?' || letter == had)
                && glob(letters.as_str(), below.as_str())
        }
    }
}

/// One page of the items, which are in the order of their keys, and the token of the next.
fn page<'a, T>(
    items: Vec<&'a T>,
    key: fn(&T) -> &str,
    request: &Request,
    largest: usize,
) -> Result<(Vec<&'a T>, Option<String>), AwsError> {
    let from = match &request.next_token {
        None => String::new(),
        Some(token) => token
            .strip_prefix("after:")
            .map(str::to_owned)
            .ok_or_else(|| {
                AwsError::client("InvalidNextToken", "The specified token is not valid.")
            })?,
    };
    let mut rest: Vec<&T> = items
        .into_iter()
        .filter(|item| key(item) > &*from)
        .collect();
    let Some(most) = request.max_results else {
        return Ok((rest, None));
    };
    let most = most.min(largest);
    let more = rest.len() > most;
    rest.truncate(most);
    let next = rest.last().map(|item| format!("after:{}", key(item)));
    Ok((rest, next.filter(|_| more)))
}

fn with_token(mut answer: Value, token: Option<String>) -> Value {
    if let Some(token) = token {
        answer["NextToken"] = json!(token);
    }
    answer
}

pub(in crate::fakes::aws) fn describe_instances(
    state: &mut State,
    call: &Admitted,
    now: Timestamp,
) -> Result<Value, AwsError> {
    let request: Request = typed(call)?;
    let largest = state.options.largest_page;
    if let Some(most) = request.max_results {
        if !request.instance_ids.is_empty() {
            return Err(AwsError::client(
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults",
            ));
        }
        if !(5..=1000).contains(&most) {
            return Err(AwsError::invalid_value(format!(
                "Value ( {most} ) for parameter maxResults is invalid. Expecting a value between 5 and 1000."
            )));
        }
    }
    // The API reference of DescribeInstances: 200 filter values in a call, 1000 ids.
    let values = request.filters.iter().map(|filter| filter.values.len());
    if values.sum::<usize>() > 200 {
        return Err(AwsError::client(
            "FilterLimitExceeded",
            "The maximum number of filter values specified on a single call is 200",
        ));
    }
    let region = region(state, call)?;
    region.look_up(&request.instance_ids, now)?;
    let mut found = Vec::new();
    for it in region.instances.values() {
        let named = request.instance_ids.is_empty() || request.instance_ids.contains(&it.id);
        let mut fits = named && it.is_known(now);
        for filter in &request.filters {
            fits &= filter.fits(it, instance_values)?;
        }
        if fits {
            found.push(it);
        }
    }
    let (found, next) = page(found, |it: &Instance| &it.id, &request, largest)?;
    let mut reservations: Vec<(String, Vec<Value>)> = Vec::new();
    for it in found {
        let had = reservations
            .iter_mut()
            .find(|(id, _)| *id == it.reservation_id);
        match had {
            Some((_, instances)) => instances.push(it.answer()),
            None => reservations.push((it.reservation_id.clone(), vec![it.answer()])),
        }
    }
    let reservations: Vec<_> = reservations
        .into_iter()
        .map(|(id, instances)| {
            json!({ "ReservationId": id, "OwnerId": call.place.account, "Instances": instances })
        })
        .collect();
    Ok(with_token(json!({ "Reservations": reservations }), next))
}

/// What a filter looks at; `None` if EC2 has no such filter, or the fake does not know it.
fn instance_values(it: &Instance, filter: &str) -> Option<Vec<String>> {
    if let Some(key) = filter.strip_prefix("tag:") {
        return Some(it.tags.get(key).cloned().into_iter().collect());
    }
    Some(match filter {
        "tag-key" => it.tags.keys().cloned().collect(),
        "instance-id" => vec![it.id.clone()],
        "instance-state-name" => vec![it.state.as_str().to_owned()],
        "instance-type" => vec![it.instance_type.clone()],
        "instance-lifecycle" if it.market == super::Market::Spot => vec!["spot".to_owned()],
        "instance-lifecycle" => Vec::new(),
        "image-id" => vec![it.image_id.clone()],
        "subnet-id" => vec![it.subnet_id.clone()],
        "availability-zone" => vec![it.zone.clone()],
        "client-token" => it.client_token.clone().into_iter().collect(),
        "private-ip-address" => vec![it.private_ip.to_string()],
        _ => return None,
    })
}

pub(in crate::fakes::aws) fn describe_subnets(
    state: &mut State,
    call: &Admitted,
) -> Result<Value, AwsError> {
    let request: Request = typed(call)?;
    let largest = state.options.largest_page;
    let region = region(state, call)?;
    for id in &request.subnet_ids {
        if !region.subnets.contains_key(id) {
            return Err(AwsError::client(
                "InvalidSubnetID.NotFound",
                format!("The subnet ID '{id}' does not exist"),
            ));
        }
    }
    let mut found = Vec::new();
    for it in region.subnets.values() {
        let mut fits = request.subnet_ids.is_empty() || request.subnet_ids.contains(&it.id);
        for filter in &request.filters {
            fits &= filter.fits(it, subnet_values)?;
        }
        if fits {
            found.push(it);
        }
    }
    let (found, next) = page(found, |it: &Subnet| &it.id, &request, largest)?;
    let answers: Vec<_> = found
        .into_iter()
        .map(|it| {
            json!({
                "SubnetId": it.id, "AvailabilityZone": it.zone, "State": "available",
                "VpcId": "vpc-00000000000000001", "OwnerId": call.place.account,
                "CidrBlock": format!("10.{}.0.0/20", it.number),
                "AvailableIpAddressCount": it.free,
            })
        })
        .collect();
    Ok(with_token(json!({ "Subnets": answers }), next))
}

fn subnet_values(it: &Subnet, filter: &str) -> Option<Vec<String>> {
    Some(match filter {
        "subnet-id" => vec![it.id.clone()],
        "availability-zone" | "availabilityZone" => vec![it.zone.clone()],
        "state" => vec!["available".to_owned()],
        _ => return None,
    })
}

pub(in crate::fakes::aws) fn describe_images(
    state: &mut State,
    call: &Admitted,
) -> Result<Value, AwsError> {
    let request: Request = typed(call)?;
    let region = region(state, call)?;
    let mut answers = Vec::new();
    for it in region.images.values() {
        let mut fits = true;
        for filter in &request.filters {
            fits &= filter.fits(it, image_values)?;
        }
        if !fits {
            continue;
        }
        let tags = it.tags.iter();
        let tags: Vec<_> = tags
            .map(|(key, value)| json!({ "Key": key, "Value": value }))
            .collect();
        answers.push(json!({
            "ImageId": it.id, "Architecture": it.architecture, "State": "available",
            "OwnerId": call.place.account, "Tags": tags,
        }));
    }
    Ok(json!({ "Images": answers }))
}

fn image_values(it: &Image, filter: &str) -> Option<Vec<String>> {
    if let Some(key) = filter.strip_prefix("tag:") {
        return Some(it.tags.get(key).cloned().into_iter().collect());
    }
    Some(match filter {
        "image-id" => vec![it.id.clone()],
        "architecture" => vec![it.architecture.clone()],
        _ => return None,
    })
}

pub(in crate::fakes::aws) fn describe_instance_types(
    state: &mut State,
    call: &Admitted,
) -> Result<Value, AwsError> {
    let request: Request = typed(call)?;
    let unknown: Vec<&str> = request
        .instance_types
        .iter()
        .map(String::as_str)
        .filter(|name| types::find(name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(AwsError::client(
            "InvalidInstanceType",
            format!(
                "The following supplied instance types do not exist: [{}]",
                unknown.join(", ")
            ),
        ));
    }
    let mut known: Vec<&InstanceType> = TYPES.iter().collect();
    known.sort_by_key(|it| it.name);
    let mut found = Vec::new();
    for it in known {
        let names = &request.instance_types;
        let mut fits = names.is_empty() || names.iter().any(|name| name == it.name);
        for filter in &request.filters {
            fits &= filter.fits(it, type_values)?;
        }
        if fits {
            found.push(it);
        }
    }
    let largest = state.options.largest_page;
    let (found, next) = page(found, |it: &InstanceType| it.name, &request, largest)?;
    let answers: Vec<_> = found
        .into_iter()
        .map(|it| {
            json!({
                "InstanceType": it.name, "CurrentGeneration": true, "BareMetal": false,
                "SupportedUsageClasses": ["on-demand", "spot"],
                "ProcessorInfo": { "SupportedArchitectures": [it.architecture] },
                "VCpuInfo": { "DefaultVCpus": it.vcpus },
                "MemoryInfo": { "SizeInMiB": it.mib },
            })
        })
        .collect();
    Ok(with_token(json!({ "InstanceTypes": answers }), next))
}

fn type_values(it: &InstanceType, filter: &str) -> Option<Vec<String>> {
    Some(match filter {
        "instance-type" => vec![it.name.to_owned()],
        "processor-info.supported-architecture" => vec![it.architecture.to_owned()],
        "current-generation" => vec!["true".to_owned()],
        _ => return None,
    })
}
