//! Which pool takes a job, by labels, place and visibility.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The size and market that a job asks for by its `muster/…` labels. The default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// The labels themselves, in lower case. The runner carries them, as GitHub matches them too.
    pub labels: BTreeSet<String>,
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Memory in GiB.
    pub memory_gib: Option<u32>,
    /// Instance type.
    pub instance_type: Option<String>,
    /// Spot or on-demand.
    pub market: Option<Market>,
}

/// Spot or on-demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Market {
    /// Cheaper, and may be taken back.
    Spot,
    /// Kept until ended.
    OnDemand,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.labels.is_empty() {
            return f.write_str("any size");
        }
        let labels: Vec<_> = self.labels.iter().map(String::as_str).collect();
        f.write_str(&labels.join(", "))
    }
}
