//! `CreateFleet` of type `instant`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Region;
use super::instance::{Instance, InstanceState, Market};
use super::pool::{Config, Pool};
use crate::fakes::aws::dispatch::{Tag, typed, unsupported};
use crate::fakes::aws::error::AwsError;
use crate::fakes::aws::ids;
use crate::fakes::aws::keys::Credentials;
use crate::fakes::aws::options::{Addresses, Options};
use crate::fakes::aws::shared::{Admitted, Place, State};
use crate::fakes::clock::after;

/// A fleet that was made.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// `fleet-…`.
    pub id: String,
    /// The call's client token.
    pub client_token: Option<String>,
    /// How many instances were asked for.
    pub target: u32,
    /// The instances.
    pub instances: Vec<String>,
    /// The error codes of what is missing.
    pub errors: Vec<String>,
    /// Its own tags.
    pub tags: BTreeMap<String, String>,
    /// The tags asked for by resource type.
    pub tag_specifications: BTreeMap<String, BTreeMap<String, String>>,
    /// When it was made.
    pub made_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Request {
    client_token: Option<String>,
    r#type: Option<String>,
    launch_template_configs: Vec<Config>,
    target_capacity_specification: Target,
    spot_options: Option<SpotOptions>,
    on_demand_options: Option<OnDemandOptions>,
    #[serde(default)]
    tag_specifications: Vec<TagSpecification>,
    #[expect(dead_code, reason = "means nothing for an instant fleet")]
    terminate_instances_with_expiration: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Target {
    total_target_capacity: u32,
    on_demand_target_capacity: Option<u32>,
    spot_target_capacity: Option<u32>,
    default_target_capacity_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SpotOptions {
    allocation_strategy: Option<String>,
    instance_interruption_behavior: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct OnDemandOptions {
    allocation_strategy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct TagSpecification {
    resource_type: String,
    #[serde(default)]
    tags: Vec<Tag>,
}

impl Request {
    /// How many on demand and how many spot.
    fn targets(&self) -> Result<[(Market, u32); 2], AwsError> {
        let target = &self.target_capacity_specification;
        let total = target.total_target_capacity;
        if !(1..=10_000).contains(&total) {
            return Err(AwsError::invalid_value(format!(
                "TotalTargetCapacity is {total}, not 1 to 10000"
            )));
        }
        let mut on_demand = target.on_demand_target_capacity.unwrap_or(0);
        let mut spot = target.spot_target_capacity.unwrap_or(0);
        let Some(rest) = total.checked_sub(on_demand + spot) else {
            return Err(AwsError::invalid_value(
                "OnDemandTargetCapacity and SpotTargetCapacity exceed TotalTargetCapacity",
            ));
        };
        match target.default_target_capacity_type.as_deref() {
            Some("spot") => spot += rest,
            Some("on-demand") => on_demand += rest,
            None if rest == 0 => {}
            Some(other) => return Err(unsupported(&format!("capacity of type {other}"))),
            None => {
                let message = "DefaultTargetCapacityType must be specified";
                return Err(AwsError::client("MissingParameter", message));
            }
        }
        Ok([(Market::OnDemand, on_demand), (Market::Spot, spot)])
    }

    /// The API's default is `lowest-price` in both markets.
    fn strategy(&self, market: Market) -> &str {
        let named = match market {
            Market::Spot => self
                .spot_options
                .as_ref()
                .and_then(|options| options.allocation_strategy.as_deref()),
            Market::OnDemand => self
                .on_demand_options
                .as_ref()
                .and_then(|options| options.allocation_strategy.as_deref()),
        };
        named.unwrap_or("lowest-price")
    }

    fn check(&self) -> Result<(), AwsError> {
        if self.r#type.as_deref() != Some("instant") {
            return Err(unsupported("fleets that are not instant"));
        }
        let behaviour = self
            .spot_options
            .as_ref()
            .and_then(|options| options.instance_interruption_behavior.as_deref());
        if !matches!(behaviour, None | Some("terminate")) {
            return Err(unsupported("interruption by anything but termination"));
        }
        if let Some(token) = &self.client_token
            && (token.is_empty() || token.len() > 64 || !token.is_ascii())
        {
            return Err(AwsError::invalid_value(
                "the ClientToken is not of 1 to 64 ASCII characters",
            ));
        }
        Ok(())
    }

    /// Tags by resource type.
    fn tags(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, AwsError> {
        let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for asked in &self.tag_specifications {
            // What an instant fleet can tag (API reference of CreateFleet, TagSpecifications).
            if !matches!(
                asked.resource_type.as_str(),
                "fleet" | "instance" | "volume" | "network-interface" | "spot-instances-request"
            ) {
                return Err(AwsError::invalid_value(format!(
                    "'{}' is not a valid taggable resource type for this operation.",
                    asked.resource_type
                )));
            }
            let tags = all.entry(asked.resource_type.clone()).or_default();
            for Tag { key, value } in &asked.tags {
                if key.is_empty()
                    || key.chars().count() > 127
                    || value.chars().count() > 255
                    || key.starts_with("aws:")
                {
                    return Err(AwsError::invalid_value(format!("the tag {key}={value}")));
                }
                if tags.len() >= 50 {
                    let message = "The maximum number of tags for a resource is 50.";
                    return Err(AwsError::client("TagLimitExceeded", message));
                }
                if tags.insert(key.clone(), value.clone()).is_some() {
                    return Err(AwsError::invalid_value(format!(
                        "Duplicate tag key '{key}' specified."
                    )));
                }
            }
        }
        Ok(all)
    }
}

pub(in crate::fakes::aws) fn create_fleet(
    state: &mut State,
    call: &Admitted,
    now: Timestamp,
) -> Result<Value, AwsError> {
    let request: Request = typed(call)?;
    request.check()?;
    let tags = request.tags()?;
    let targets = request.targets()?;
    let options = state.options.clone();
    let parameters = state.parameters.get(&call.place);
    let resolve = |name: &str| parameters?.latest(name).map(|it| it.value.clone());
    let Some(region) = state.regions.get_mut(&call.place) else {
        return Err(AwsError::client(
            "OptInRequired",
            "this region is not enabled",
        ));
    };
    if let Some(token) = &request.client_token
        && let Some((parameters, answer)) = region.remembered.get(token)
    {
        if *parameters == call.parameters {
            return Ok(answer.clone());
        }
        return Err(AwsError::client(
            "IdempotentParameterMismatch",
            format!("The client token '{token}' was used with other parameters before."),
        ));
    }
    let pools = region.pools(&request.launch_template_configs, &resolve)?;
    let fleet_id = format!("fleet-{}", ids::uuid());
    let (mut instances, mut errors, mut launched) = (Vec::new(), Vec::new(), Vec::new());
    let mut codes = Vec::new();
    for (market, want) in targets {
        let strategy = request.strategy(market);
        let got = region.allocate(&mut state.faults, &pools, market, strategy, want);
        for (pool, count) in got.given {
            let maker = Maker {
                options: &options,
                now,
                market,
                tags: tags.get("instance"),
                client_token: request.client_token.as_ref(),
                fleet_id: &fleet_id,
            };
            let made = region.launch(&maker, &pool, count);
            let made_ids: Vec<_> = made.iter().map(|it| it.id.clone()).collect();
            instances.push(json!({
                "LaunchTemplateAndOverrides": pool.answer(), "Lifecycle": market.as_str(),
                "InstanceIds": made_ids, "InstanceType": pool.instance_type,
                "AvailabilityZone": pool.zone, "SubnetId": pool.subnet_id,
            }));
            launched.extend(made);
        }
        for (pool, code, message) in got.errors {
            errors.push(json!({
                "LaunchTemplateAndOverrides": pool.answer(), "Lifecycle": market.as_str(),
                "ErrorCode": code, "ErrorMessage": message,
            }));
            codes.push(code);
        }
    }
    let answer = json!({ "FleetId": fleet_id, "Instances": instances, "Errors": errors });
    if let Some(token) = &request.client_token {
        let known = (call.parameters.clone(), answer.clone());
        region.remembered.insert(token.clone(), known);
    }
    region.fleets.push(Fleet {
        id: fleet_id,
        client_token: request.client_token.clone(),
        target: request.target_capacity_specification.total_target_capacity,
        instances: launched.iter().map(|it| it.id.clone()).collect(),
        errors: codes,
        tags: tags.get("fleet").cloned().unwrap_or_default(),
        tag_specifications: tags,
        made_at: now,
    });
    for it in launched {
        state.welcome(it, now);
    }
    Ok(answer)
}

impl State {
    /// Launches an instance that no call asked for, of the first launch template.
    pub(in crate::fakes::aws) fn plant(
        &mut self,
        place: &Place,
        market: Market,
        instance_type: &str,
        tags: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Option<String> {
        let options = self.options.clone();
        let region = self.regions.get_mut(place)?;
        let template = region.templates.first()?.id.clone();
        let pool = region.pool_of(&template, instance_type).ok()?;
        let maker = Maker {
            options: &options,
            now,
            market,
            tags: Some(tags),
            client_token: None,
            fleet_id: &format!("fleet-{}", ids::uuid()),
        };
        let it = region.launch(&maker, &pool, 1).pop()?;
        if let Some(subnet) = region.subnets.get_mut(&it.subnet_id) {
            subnet.free = subnet.free.saturating_sub(1);
        }
        let id = it.id.clone();
        self.welcome(it, now);
        Some(id)
    }
}

/// What all instances of one pool have in common.
struct Maker<'a> {
    options: &'a Options,
    now: Timestamp,
    market: Market,
    tags: Option<&'a BTreeMap<String, String>>,
    client_token: Option<&'a String>,
    fleet_id: &'a str,
}

impl Region {
    fn launch(&mut self, maker: &Maker<'_>, pool: &Pool, count: u32) -> Vec<Instance> {
        let stages = &maker.options.stages;
        let template = self
            .template(Some(&pool.template_id), None)
            .map(|template| template.version(pool.template_version))
            .unwrap_or_default();
        let mut tags: BTreeMap<_, _> = template.tags.into_iter().collect();
        tags.extend(maker.tags.cloned().unwrap_or_default());
        tags.insert("aws:ec2:fleet-id".to_owned(), maker.fleet_id.to_owned());
        let reservation_id = ids::resource("r-");
        let mut made = Vec::new();
        for index in 0..count {
            let doomed = self.doomed > 0;
            self.doomed -= u32::from(doomed);
            let (due, reason) = if doomed {
                let reason = "Server.InternalError".to_owned();
                (InstanceState::Terminated, Some(reason))
            } else {
                (InstanceState::Running, None)
            };
            let it = Instance {
                id: ids::resource("i-"),
                place: self.place.clone(),
                zone: pool.zone.clone(),
                subnet_id: pool.subnet_id.clone(),
                instance_type: pool.instance_type.clone(),
                architecture: pool.architecture.clone(),
                image_id: pool.image_id.clone(),
                market: maker.market,
                private_ip: self.address(maker.options.addresses, &pool.subnet_id),
                launched_at: maker.now,
                state: InstanceState::Pending,
                tags: tags.clone(),
                fleet_id: maker.fleet_id.to_owned(),
                client_token: maker.client_token.cloned(),
                template_id: pool.template_id.clone(),
                template_version: pool.template_version,
                ends_on_shutdown: template.ends_on_shutdown,
                protected: template.protected,
                reason,
                skip_os_shutdown: false,
                interrupted_at: None,
                identity_key: Credentials::until(maker.now).access_key_id,
                reservation_id: reservation_id.clone(),
                index,
                known_from: after(maker.now, stages.unknown),
                due: Some((after(maker.now, stages.pending), due)),
                forgotten_at: None,
            };
            self.instances.insert(it.id.clone(), it.clone());
            made.push(it);
        }
        made
    }

    fn address(&mut self, addresses: Addresses, subnet_id: &str) -> Ipv4Addr {
        if let Addresses::Fixed(address) = addresses {
            return address;
        }
        self.addresses_given += 1;
        let number = self.subnets.get(subnet_id).map_or(0, |it| it.number);
        let [_, _, high, low] = self.addresses_given.to_be_bytes();
        // 10.<subnet>.<count>.<count>
        Ipv4Addr::new(10, number, high, low)
    }
}
