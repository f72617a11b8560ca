//! Providers of instances. Beyond this door only our own types travel.

pub mod local;

use std::time::Duration;

use muster_core::{InstanceId, LaunchFailure, LaunchId, PoolName, Shape};
use thiserror::Error;

pub use self::local::LocalProvider;

/// A provider of instances. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Provider {
    /// Processes of this host.
    Local(LocalProvider),
}

/// One instance to make.
#[derive(Clone, Debug)]
pub struct LaunchOrder {
    /// The launch: the same one twice makes one instance.
    pub launch: LaunchId,
    /// Its pool.
    pub pool: PoolName,
    /// Size and market.
    pub shape: Shape,
    /// How long the instance may live.
    pub lifetime: Duration,
}

/// An instance was not made, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// It was not, and will not be.
    #[error("{detail}")]
    Failed {
        /// What kind of failure it is.
        failure: LaunchFailure,
        /// Why.
        detail: String,
    },
    /// Nobody knows: the same order is to be given again.
    #[error("{0}")]
    Unknown(String),
}

/// The provider can't say or do what was asked; the same may work later.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ProviderError(pub String);

/// What a provider has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Instances that exist, with the launch that they are marked with.
    pub alive: Vec<(InstanceId, Option<LaunchId>)>,
    /// Instances that are known to be gone.
    pub gone: Vec<(InstanceId, LaunchId)>,
}

impl Provider {
    /// Makes an instance, or finds the one that the same launch made before.
    ///
    /// # Errors
    /// As [`LaunchError`] says.
    pub async fn launch(&self, order: LaunchOrder) -> Result<InstanceId, LaunchError> {
        match self {
            Self::Local(local) => local.launch(order).await,
        }
    }

    /// Ends an instance; true if it is known to be gone. One that is gone already is no error.
    ///
    /// # Errors
    /// When it may be alive and its end could not be asked for.
    pub async fn terminate(&self, instance: &InstanceId) -> Result<bool, ProviderError> {
        match self {
            Self::Local(local) => local.terminate(instance).await,
        }
    }

    /// All instances that carry our mark.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn list(&self) -> Result<Listed, ProviderError> {
        match self {
            Self::Local(local) => local.list().await,
        }
    }

    /// Returns when an instance ended, as far as the provider sees it by itself. May never return.
    pub async fn something_ended(&self) {
        match self {
            Self::Local(local) => local.something_ended().await,
        }
    }
}
