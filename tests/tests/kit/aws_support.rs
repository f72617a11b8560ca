//! Clients of the real SDKs that speak to the fake AWS without a socket.

use std::time::Duration;

use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::create_fleet::CreateFleetOutput;
use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, Filter, FleetLaunchTemplateConfigRequest,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest, FleetType,
    InstanceType, Reservation, ResourceType, SpotAllocationStrategy, SpotOptionsRequest, Tag,
    TagSpecification, TargetCapacitySpecificationRequest,
};
use muster_tests::fakes::aws::{self, FakeAws, Options, Place};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The fake and where it is at home.
pub(crate) struct Cloud {
    pub(crate) aws: FakeAws,
    pub(crate) home: Place,
}

/// What a client signs with, and where it goes.
pub(crate) struct As {
    pub(crate) key: aws::Credentials,
    pub(crate) region: String,
}

macro_rules! client {
    ($name:ident, $sdk:ident) => {
        /// A client without retries.
        pub(crate) fn $name(&self, by: &As) -> $sdk::Client {
            let key = &by.key;
            let config = $sdk::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(by.region.clone()))
                .endpoint_url(&self.aws.url)
                .http_client(self.aws.http_client())
                .retry_config(RetryConfig::disabled())
                .credentials_provider(Credentials::new(
                    &key.access_key_id,
                    &key.secret_access_key,
                    key.session_token.clone(),
                    None,
                    "test",
                ));
            $sdk::Client::from_conf(config.build())
        }
    };
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let aws = FakeAws::start(options).await.unwrap();
        let home = aws.home();
        Self { aws, home }
    }

    client!(ec2_as, aws_sdk_ec2);
    client!(sts_as, aws_sdk_sts);
    client!(ssm_as, aws_sdk_ssm);
    client!(sqs_as, aws_sdk_sqs);

    /// The static key at home.
    pub(crate) fn coordinator(&self) -> As {
        let options = self.aws.options();
        As {
            key: aws::Credentials {
                access_key_id: options.access_key_id.clone(),
                secret_access_key: options.secret_access_key.clone(),
                session_token: None,
                expires: None,
            },
            region: self.home.region.clone(),
        }
    }

    pub(crate) fn ec2(&self) -> aws_sdk_ec2::Client {
        self.ec2_as(&self.coordinator())
    }

    /// The subnet in a zone at home, `a`, `b` or `c`.
    pub(crate) fn subnet(&self, letter: char) -> String {
        let subnets = self.aws.subnets(&self.home);
        let found = subnets.iter().find(|it| it.zone.ends_with(letter)).unwrap();
        found.id.clone()
    }

    /// A zone at home.
    pub(crate) fn zone(&self, letter: char) -> String {
        format!("{}{letter}", self.home.region)
    }

    /// A fleet's request as Muster makes it: the template `muster`, types and zones, spot.
    pub(crate) fn fleet(
        &self,
        token: &str,
        count: i32,
        pools: &[(&str, char)],
    ) -> CreateFleetFluentBuilder {
        let overrides = (0..).zip(pools).map(|(priority, (name, letter))| {
            FleetLaunchTemplateOverridesRequest::builder()
                .instance_type(InstanceType::from(*name))
                .subnet_id(self.subnet(*letter))
                .priority(f64::from(priority))
                .build()
        });
        let template = FleetLaunchTemplateSpecificationRequest::builder()
            .launch_template_name("muster")
            .version("$Default")
            .build();
        let config = FleetLaunchTemplateConfigRequest::builder()
            .launch_template_specification(template)
            .set_overrides(Some(overrides.collect()))
            .build();
        let tagged = |kind: ResourceType| {
            TagSpecification::builder()
                .resource_type(kind)
                .tags(tag("muster:coordinator", "test"))
                .tags(tag("muster:batch", token))
                .build()
        };
        self.ec2()
            .create_fleet()
            .client_token(token)
            .r#type(FleetType::Instant)
            .launch_template_configs(config)
            .spot_options(
                SpotOptionsRequest::builder()
                    .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
                    .build(),
            )
            .target_capacity_specification(target(count, DefaultTargetCapacityType::Spot))
            .tag_specifications(tagged(ResourceType::Instance))
            .tag_specifications(tagged(ResourceType::Volume))
            .tag_specifications(tagged(ResourceType::Fleet))
    }

    /// Launches spot instances; answers their ids.
    pub(crate) async fn launch(&self, token: &str, count: i32) -> Vec<String> {
        let fleet = self.fleet(token, count, &[("m7i.large", 'a'), ("m7i.large", 'b')]);
        ids(&fleet.send().await.unwrap())
    }

    /// The ids and states of the coordinator's instances.
    pub(crate) async fn described(&self) -> Vec<(String, String)> {
        let filter = Filter::builder()
            .name("tag:muster:coordinator")
            .values("test");
        let answer = self.ec2().describe_instances().filters(filter.build());
        let answer = answer.send().await.unwrap();
        let reservations = answer.reservations();
        let instances = reservations.iter().flat_map(Reservation::instances);
        instances
            .map(|it| {
                let state = it.state().and_then(|state| state.name()).unwrap();
                let id = it.instance_id().unwrap();
                (id.to_owned(), state.as_str().to_owned())
            })
            .collect()
    }

    /// Ends a test: nothing may have departed from AWS's models.
    pub(crate) fn assert_conforms(&self) {
        assert_eq!(self.aws.violations(), Vec::<String>::new());
    }
}

pub(crate) fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

pub(crate) fn target(
    count: i32,
    market: DefaultTargetCapacityType,
) -> TargetCapacitySpecificationRequest {
    TargetCapacitySpecificationRequest::builder()
        .total_target_capacity(count)
        .default_target_capacity_type(market)
        .build()
}

/// The ids of a fleet's instances.
pub(crate) fn ids(fleet: &CreateFleetOutput) -> Vec<String> {
    let groups = fleet.instances().iter();
    groups
        .flat_map(|group| group.instance_ids().to_vec())
        .collect()
}

/// The codes of a fleet's errors.
pub(crate) fn codes(fleet: &CreateFleetOutput) -> Vec<&str> {
    let errors = fleet.errors().iter();
    errors.filter_map(|error| error.error_code()).collect()
}

/// The code of a call's error.
pub(crate) fn code<
    T: std::fmt::Debug,
    E: ProvideErrorMetadata + std::fmt::Debug,
    R: std::fmt::Debug,
>(
    answer: Result<T, SdkError<E, R>>,
) -> String {
    let error = answer.unwrap_err();
    let known = error.as_service_error().and_then(|error| error.code());
    known.map_or_else(|| format!("{error:?}"), str::to_owned)
}
