//! Providers of instances. Beyond this door only our own types travel.

pub mod local;

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
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

/// What a provider says of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceFacts {
    /// What it does.
    pub state: InstanceState,
    /// The image that it was made from.
    pub image: String,
    /// The subnet that it is in.
    pub subnet: Option<String>,
    /// Its private address.
    pub private_ip: Option<IpAddr>,
    /// When it was started last.
    pub launched_at: Timestamp,
    /// The coordinator that its tags name. Whoever may tag can write it, as the two below.
    pub coordinator: Option<String>,
    /// The pool that its tags name.
    pub pool: Option<String>,
    /// The batch that its tags name.
    pub batch: Option<String>,
}

/// What an instance does, in EC2's words
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It is being made.
    Pending,
    /// It runs.
    Running,
    /// It is being ended.
    ShuttingDown,
    /// It is gone.
    Terminated,
    /// It is being stopped.
    Stopping,
    /// It is stopped.
    Stopped,
    /// A state that this version doesn't know.
    Unknown,
}

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

    /// What the provider knows of one instance. None if it knows no such instance, or not yet: shortly
    /// after a launch that proves nothing.
    ///
    /// # Errors
    /// When it can't say at present.
    #[expect(clippy::unused_async, reason = "providers of a cloud ask it")]
    pub async fn describe(
        &self,
        _instance: &InstanceId,
    ) -> Result<Option<InstanceFacts>, ProviderError> {
        match self {
            // Its instances enrol with a token that it gave them itself; nobody asks for more.
            Self::Local(_) => Ok(None),
        }
    }

    /// Returns when an instance ended, as far as the provider sees it by itself. May never return.
    pub async fn something_ended(&self) {
        match self {
            Self::Local(local) => local.something_ended().await,
        }
    }
}
