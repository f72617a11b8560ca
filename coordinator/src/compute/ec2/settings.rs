//! What the EC2 provider is told: an account, and what its pools launch.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_core::{AccountName, Market, PoolName};
use serde::{Deserialize, Serialize};
use url::Url;

/// One AWS account in one region, seen through one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Settings {
    /// Its name in the configuration.
    pub name: AccountName,
    /// Number of the AWS account, twelve digits.
    pub account_id: String,
    /// The region.
    pub region: String,
    /// The role to assume there; none uses the coordinator's own credentials.
    pub role: Option<RoleSettings>,
    /// Base of all its APIs in place of AWS's own endpoints.
    pub endpoint: Option<Url>,
    /// Queue that EventBridge sends EC2's events to.
    pub queue_url: Option<String>,
    /// Value of the tag that marks what this coordinator made.
    pub coordinator: String,
    /// Its pools.
    pub pools: BTreeMap<PoolName, Ec2Pool>,
}

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSettings {
    /// Its ARN.
    pub arn: String,
    /// What its trust policy wants to hear from us, if anything.
    pub external_id: Option<String>,
}

/// What a pool launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Pool {
    /// The launch template; it says what the overrides don't.
    pub template: Template,
    /// Where the image is taken from.
    pub image: ImageSource,
    /// Where the image of its canary is taken from, if it has one; not from the launch template.
    pub canary: Option<ImageSource>,
    /// Subnets, best first. Of those in one zone, the first that has addresses is used.
    pub subnets: Vec<String>,
    /// Instance types, best first.
    pub types: Vec<String>,
    /// The market that is tried first.
    pub market: Market,
    /// Whether on-demand is tried when Spot has nothing.
    pub on_demand_fallback: bool,
    /// How EC2 chooses among Spot offerings.
    pub strategy: SpotStrategy,
}

/// A launch template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// By what it is found.
    pub key: TemplateKey,
    /// Its version: a number, `$Default` or `$Latest`.
    pub version: String,
}

/// By what a launch template is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateKey {
    /// Its id, such as `lt-0123456789abcdef0`.
    Id(String),
    /// Its name.
    Name(String),
}

/// Where a pool's image is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The launch template has it.
    Template,
    /// This one.
    Id(String),
    /// The one that this SSM parameter names at the time of the launch.
    Parameter(String),
}

impl ImageSource {
    /// The name of the parameter, if it is one.
    pub(super) fn parameter(&self) -> Option<&String> {
        match self {
            Self::Parameter(name) => Some(name),
            Self::Template | Self::Id(_) => None,
        }
    }
}

/// How EC2 chooses among Spot offerings
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-allocation-strategy.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpotStrategy {
    /// Cheap, of those with capacity to spare: for jobs of minutes.
    PriceCapacityOptimized,
    /// Least likely to be taken back: for jobs of hours.
    CapacityOptimized,
}

/// How often AWS is asked for what it says late. Only tests are in more of a hurry than the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often parameters are read: a new image is launched from so long after it is published.
    pub images: Duration,
    /// The least time between two looks for what a call without an answer made.
    pub look: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            images: Duration::from_secs(60),
            look: Duration::from_secs(1),
        }
    }
}
