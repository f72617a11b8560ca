//! The CreateFleet call.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    CreateFleetError, CreateFleetInstance, DefaultTargetCapacityType,
    FleetLaunchTemplateConfigRequest, FleetLaunchTemplateOverridesRequest,
    FleetLaunchTemplateSpecificationRequest, FleetOnDemandAllocationStrategy, FleetType,
    InstanceType, OnDemandOptionsRequest, ResourceType, SpotAllocationStrategy,
    SpotInstanceInterruptionBehavior, SpotOptionsRequest, Tag, TagSpecification,
    TargetCapacitySpecificationRequest,
};
use muster_core::Offering;

use super::batch::{Batch, FleetRequest, Made};
use super::error::{self, CallError, Kind};
use super::settings::{SpotStrategy, TemplateKey};

/// What EC2 answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The instances that it made.
    pub(super) made: Vec<Made>,
    /// Why it made no more, as far as it says.
    pub(super) failures: Vec<Failure>,
}

/// Why one offering gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) offering: Option<Offering>,
    pub(super) subnet: Option<String>,
    /// None for a code that we don't know.
    pub(super) kind: Option<Kind>,
    pub(super) text: String,
}

/// Makes the call of a batch. The same batch twice makes its instances once.
pub(super) async fn create(client: &Client, batch: &Batch) -> Result<Answer, CallError> {
    let request = &batch.request;
    let count = i32::try_from(batch.launches.len()).unwrap_or(i32::MAX);
    let market = match request.market {
        muster_core::Market::Spot => DefaultTargetCapacityType::Spot,
        muster_core::Market::OnDemand => DefaultTargetCapacityType::OnDemand,
    };
    let capacity = TargetCapacitySpecificationRequest::builder()
        .total_target_capacity(count)
        .default_target_capacity_type(market)
        .build();
    let call = client
        .create_fleet()
        .client_token(&batch.token)
        .r#type(FleetType::Instant)
        .launch_template_configs(template(request))
        .target_capacity_specification(capacity)
        .set_tag_specifications(Some(tags(request)));
    let call = match request.market {
        muster_core::Market::Spot => call.spot_options(
            SpotOptionsRequest::builder()
                .allocation_strategy(match request.strategy {
                    SpotStrategy::PriceCapacityOptimized => {
                        SpotAllocationStrategy::PriceCapacityOptimized
                    }
                    SpotStrategy::CapacityOptimized => SpotAllocationStrategy::CapacityOptimized,
                })
                // Anything else leaves a stopped instance whose registration is gone.
                .instance_interruption_behavior(SpotInstanceInterruptionBehavior::Terminate)
                .build(),
        ),
        muster_core::Market::OnDemand => call.on_demand_options(
            OnDemandOptionsRequest::builder()
                .allocation_strategy(FleetOnDemandAllocationStrategy::LowestPrice)
                .build(),
        ),
    };
    let output = call
        .send()
        .await
        .map_err(|error| error::of_call("CreateFleet", &error))?;
    Ok(Answer {
        made: output
            .instances()
            .iter()
            .flat_map(|group| made(batch, group))
            .collect(),
        failures: output
            .errors()
            .iter()
            .map(|failed| failure(batch, failed))
            .collect(),
    })
}

fn template(request: &FleetRequest) -> FleetLaunchTemplateConfigRequest {
    let template = FleetLaunchTemplateSpecificationRequest::builder();
    let template = match &request.template.key {
        TemplateKey::Id(id) => template.launch_template_id(id),
        TemplateKey::Name(name) => template.launch_template_name(name),
    }
    .version(&request.template.version)
    .build();
    let overrides = request.choices.iter().map(|choice| {
        FleetLaunchTemplateOverridesRequest::builder()
            .instance_type(InstanceType::from(choice.instance_type.as_str()))
            .subnet_id(&choice.subnet)
            .set_image_id(request.image.clone())
            .build()
    });
    FleetLaunchTemplateConfigRequest::builder()
        .launch_template_specification(template)
        .set_overrides(Some(overrides.collect()))
        .build()
}

fn tags(request: &FleetRequest) -> Vec<TagSpecification> {
    let tags: Vec<Tag> = request
        .tags
        .iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect();
    [
        ResourceType::Instance,
        ResourceType::Volume,
        ResourceType::Fleet,
    ]
    .into_iter()
    .map(|resource| {
        TagSpecification::builder()
            .resource_type(resource)
            .set_tags(Some(tags.clone()))
            .build()
    })
    .collect()
}

/// The instances of one group in the answer.
fn made(batch: &Batch, group: &CreateFleetInstance) -> Vec<Made> {
    let overrides = group
        .launch_template_and_overrides()
        .and_then(|both| both.overrides());
    let instance_type = group
        .instance_type()
        .or_else(|| overrides.and_then(|chosen| chosen.instance_type()))
        .map(|name| name.as_str().to_owned())
        .unwrap_or_default();
    let subnet = group
        .subnet_id()
        .or_else(|| overrides.and_then(|chosen| chosen.subnet_id()));
    let zone = group
        .availability_zone()
        .or_else(|| overrides.and_then(|chosen| chosen.availability_zone()))
        .map(str::to_owned)
        .or_else(|| zone_of(batch, subnet))
        .unwrap_or_default();
    group
        .instance_ids()
        .iter()
        .map(|id| Made {
            instance: id.as_str().into(),
            offering: Offering {
                market: batch.request.market,
                instance_type: instance_type.clone(),
                zone: zone.clone(),
            },
        })
        .collect()
}

fn failure(batch: &Batch, failed: &CreateFleetError) -> Failure {
    let overrides = failed
        .launch_template_and_overrides()
        .and_then(|both| both.overrides());
    let subnet = overrides.and_then(|chosen| chosen.subnet_id());
    let zone = overrides
        .and_then(|chosen| chosen.availability_zone())
        .map(str::to_owned)
        .or_else(|| zone_of(batch, subnet));
    let instance_type = overrides.and_then(|chosen| chosen.instance_type());
    let code = failed.error_code().unwrap_or_default();
    let message = failed.error_message().unwrap_or_default();
    Failure {
        offering: instance_type.zip(zone).map(|(name, zone)| Offering {
            market: batch.request.market,
            instance_type: name.as_str().to_owned(),
            zone,
        }),
        subnet: subnet.map(str::to_owned),
        kind: error::kind(code),
        text: format!("{code}: {}", error::shortened(message)),
    }
}

fn zone_of(batch: &Batch, subnet: Option<&str>) -> Option<String> {
    let subnet = subnet?;
    let mut choices = batch.request.choices.iter();
    let choice = choices.find(|choice| choice.subnet == subnet)?;
    Some(choice.zone.clone())
}
