//! What providers launch from.

use std::collections::BTreeMap;

use muster_core::{ImageId, PoolName};

/// What a provider launches from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// The images of each pool whose own image is known, or is its launch template's.
    pub pools: BTreeMap<PoolName, PoolImages>,
    /// The version of the official runner in each image that was looked at; none if it doesn't say.
    pub runners: BTreeMap<ImageId, Option<String>>,
}

/// The images of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolImages {
    /// Its own; none if its launch template has it.
    pub own: Option<ImageId>,
    /// What was launched last by its launch template, as far as that was seen.
    pub seen: Option<ImageId>,
    /// Its canary, once that is known.
    pub canary: Option<ImageId>,
}
