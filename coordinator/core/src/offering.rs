//! What a provider sells capacity by.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::matching::Market;

/// One kind of capacity. A provider runs out of one of these at a time, not of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offering {
    /// Spot or on-demand.
    pub market: Market,
    /// Instance type, such as `m7i.large`.
    pub instance_type: String,
    /// Availability zone, such as `eu-west-1a`.
    pub zone: String,
}

impl fmt::Display for Offering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            market,
            instance_type,
            zone,
        } = self;
        write!(f, "{market} {instance_type} in {zone}")
    }
}
