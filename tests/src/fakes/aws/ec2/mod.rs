//! EC2, as far as Muster uses it.

mod allocate;
mod capacity;
mod describe;
mod fleet;
mod furniture;
mod instance;
mod life;
mod pool;
mod templates;
mod terminate;
mod types;

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

pub use self::capacity::{Capacity, Offering};
pub(super) use self::describe::{
    describe_images, describe_instance_types, describe_instances, describe_subnets,
};
pub use self::fleet::Fleet;
pub(super) use self::fleet::create_fleet;
pub use self::furniture::{Image, Subnet};
pub use self::instance::{Instance, InstanceState, Life, Market};
pub use self::templates::{Template, TemplateVersion};
pub(super) use self::templates::{describe_launch_template_versions, describe_launch_templates};
pub(super) use self::terminate::terminate;
pub use self::types::{InstanceType, TYPES};
use super::error::AwsError;
use super::shared::{Admitted, Place, State};

/// EC2 of one account and region.
pub(super) struct Region {
    pub(super) place: Place,
    pub(super) subnets: BTreeMap<String, Subnet>,
    pub(super) images: BTreeMap<String, Image>,
    pub(super) templates: Vec<Template>,
    pub(super) capacity: Vec<(Offering, Capacity)>,
    pub(super) instances: BTreeMap<String, Instance>,
    pub(super) fleets: Vec<Fleet>,
    /// So many of the next instances end right after their launch.
    pub(super) doomed: u32,
    /// Client token to the parameters that it came with and their answer.
    remembered: HashMap<String, (Value, Value)>,
    addresses_given: u32,
}

impl Region {
    /// With a subnet in each of three zones, an image for each architecture, and a launch template.
    pub(super) fn furnished(place: Place) -> Self {
        let mut region = Self {
            subnets: BTreeMap::new(),
            images: BTreeMap::new(),
            templates: Vec::new(),
            capacity: Vec::new(),
            instances: BTreeMap::new(),
            fleets: Vec::new(),
            doomed: 0,
            remembered: HashMap::new(),
            addresses_given: 0,
            place,
        };
        region.furnish();
        region
    }
}

/// The region of a call.
fn region<'a>(state: &'a mut State, call: &Admitted) -> Result<&'a mut Region, AwsError> {
    state
        .regions
        .get_mut(&call.place)
        .ok_or_else(|| AwsError::client("OptInRequired", "this region is not enabled"))
}
