//! What a provider says of the instances that carry our mark.

use jiff::Timestamp;

use crate::ids::{InstanceId, LaunchId, PoolName};
use crate::offering::Offering;

/// An instance that carries our mark and is not gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The instance.
    pub instance: InstanceId,
    /// The launch that it is marked with, where the mark says which.
    pub launch: Option<LaunchId>,
    /// What it is, if it was launched and the store knows nothing of that: the store was lost, or is older than
    /// the instance. None for all others.
    pub origin: Option<Origin>,
}

/// What is known of an instance that the store knows nothing of. Whoever may tag instances can write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The pool that it was launched for.
    pub pool: PoolName,
    /// Since when it is there.
    pub since: Timestamp,
    /// What capacity it came from, where its provider sells more than one kind.
    pub offering: Option<Offering>,
}
