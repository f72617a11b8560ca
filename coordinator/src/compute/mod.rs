//! Providers of instances. Beyond this door only our own types travel.

pub mod ec2;
mod images;
pub mod local;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{
    Event, ImageId, InstanceId, Interruption, LaunchFailure, LaunchId, Marked, Offering, PoolName,
    Shape,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

pub use self::ec2::Ec2Provider;
pub use self::images::{Images, PoolImages};
pub use self::local::LocalProvider;

/// A provider of instances. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Provider {
    /// Processes of this host.
    Local(LocalProvider),
    /// EC2, in one account and region.
    Ec2(Ec2Provider),
    /// A cloud in memory.
    #[cfg(test)]
    Simulated(crate::simulation::Cloud),
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
    /// The image to take in place of the pool's own: its canary.
    pub canary: Option<ImageId>,
    /// How long the instance may live.
    pub lifetime: Duration,
    /// Who is told why it takes longer.
    pub held_up: HeldUp,
}

/// An instance that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The instance.
    pub instance: InstanceId,
    /// What capacity it came from, if the provider sells more than one kind.
    pub offering: Option<Offering>,
}

/// Tells people why something is not done yet. A hint: where there is no room for it, it is dropped.
#[derive(Clone, Debug)]
pub struct HeldUp {
    to: Option<(LaunchId, mpsc::Sender<Event>)>,
}

impl HeldUp {
    /// Tells it as an event of this launch.
    #[must_use]
    pub fn of(launch: LaunchId, events: mpsc::Sender<Event>) -> Self {
        Self {
            to: Some((launch, events)),
        }
    }

    /// Tells nobody.
    #[must_use]
    pub fn nobody() -> Self {
        Self { to: None }
    }

    /// Tells why.
    pub fn tell(&self, reason: &str) {
        if let Some((launch, events)) = &self.to {
            let event = Event::HeldUp {
                launch: launch.clone(),
                reason: reason.to_owned(),
            };
            // The next reason is told again.
            let _ = events.try_send(event);
        }
    }
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
    /// What it was launched as. None if this coordinator launched no such instance of late.
    pub launched_as: Option<LaunchedAs>,
}

/// What an instance was launched as, as it was stored before the call that made it: whatever the
/// configuration or a parameter says since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchedAs {
    /// The batch of its launch, which is in its tags.
    pub batch: String,
    /// The image; none if it was left to the launch template, which may say another by now.
    pub image: Option<String>,
    /// The subnets that were offered.
    pub subnets: BTreeSet<String>,
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
    /// Instances that exist.
    pub alive: Vec<Marked>,
    /// Instances that are known to be gone, with the launch that they are marked with.
    pub gone: Vec<(InstanceId, Option<LaunchId>)>,
}

/// Which services a provider stands on, and which of them answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Services that answer.
    pub answering: Vec<&'static str>,
    /// Services that don't.
    pub lacking: Vec<Unreachable>,
}

/// A service that doesn't answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{service}: {reason}. So {means}")]
pub struct Unreachable {
    /// Its name.
    pub service: &'static str,
    /// Why not, with the endpoint that was asked.
    pub reason: String,
    /// What that means for pools and instances.
    pub means: String,
}

/// What a provider says of an instance by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The instance.
    pub instance: InstanceId,
    /// What happens to it.
    pub kind: NoticeKind,
    /// What acknowledges it.
    pub receipt: String,
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// It is gone.
    Gone,
    /// It will be taken away.
    Interrupted {
        /// By whom.
        kind: Interruption,
        /// When, if known.
        deadline: Option<Timestamp>,
    },
}

impl Provider {
    /// Makes an instance, or finds the one that the same launch made before.
    ///
    /// # Errors
    /// As [`LaunchError`] says.
    pub async fn launch(&self, order: LaunchOrder) -> Result<Launched, LaunchError> {
        match self {
            Self::Local(local) => local.launch(order).await.map(|instance| Launched {
                instance,
                offering: None,
            }),
            Self::Ec2(ec2) => ec2.launch(order).await,
            #[cfg(test)]
            Self::Simulated(cloud) => cloud.launch(order).await,
        }
    }

    /// Ends an instance; true if it is known to be gone. One that is gone already is no error. `at_once`
    /// leaves out the orderly shutdown, where there is one.
    ///
    /// # Errors
    /// When it may be alive and its end could not be asked for.
    pub async fn terminate(
        &self,
        instance: &InstanceId,
        at_once: bool,
    ) -> Result<bool, ProviderError> {
        match self {
            Self::Local(local) => local.terminate(instance).await,
            Self::Ec2(ec2) => ec2.terminate(instance, at_once).await,
            #[cfg(test)]
            Self::Simulated(cloud) => cloud.terminate(instance).await,
        }
    }

    /// All instances that carry our mark.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn list(&self) -> Result<Listed, ProviderError> {
        match self {
            Self::Local(local) => local.list().await,
            Self::Ec2(ec2) => ec2.list().await,
            #[cfg(test)]
            Self::Simulated(cloud) => cloud.list().await,
        }
    }

    /// How long an instance must be missing from the lists before it counts as gone.
    #[must_use]
    pub fn absence(&self) -> Duration {
        match self {
            // Its lists are what is on this host.
            Self::Local(_) => Duration::ZERO,
            Self::Ec2(_) => ec2::ABSENCE,
            #[cfg(test)]
            Self::Simulated(_) => crate::simulation::ABSENCE,
        }
    }

    /// Asks each service that it stands on once.
    pub async fn reach(&self) -> Reach {
        match self {
            Self::Local(_) => Reach::default(),
            Self::Ec2(ec2) => Box::pin(ec2.reach()).await,
            #[cfg(test)]
            Self::Simulated(_) => Reach::default(),
        }
    }

    /// Waits for notices; may give none after a while, and may never return. They come again until they
    /// are acknowledged.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn notices(&self) -> Result<Vec<Notice>, ProviderError> {
        match self {
            Self::Local(_) => std::future::pending().await,
            Self::Ec2(ec2) => ec2.notices().await,
            #[cfg(test)]
            Self::Simulated(cloud) => cloud.notices().await,
        }
    }

    /// Acknowledges notices by their receipts.
    ///
    /// # Errors
    /// When it is not known whether they are; then they come again.
    pub async fn acknowledge(&self, receipts: Vec<String>) -> Result<(), ProviderError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Ec2(ec2) => ec2.acknowledge(receipts).await,
            #[cfg(test)]
            Self::Simulated(cloud) => cloud.acknowledge(receipts).await,
        }
    }

    /// Whether an instance that no launch has may be one that a launch gets, or just got.
    ///
    /// # Errors
    /// When the provider can't say at present.
    pub async fn may_be_ours_soon(&self, instance: &InstanceId) -> Result<bool, ProviderError> {
        match self {
            Self::Local(_) => Ok(false),
            Self::Ec2(ec2) => ec2.may_be_ours_soon(instance).await,
            #[cfg(test)]
            Self::Simulated(cloud) => cloud.may_be_ours_soon(instance).await,
        }
    }

    /// What its pools launch from, as it becomes known; none if it knows no images.
    #[must_use]
    pub fn images(&self) -> Option<watch::Receiver<Images>> {
        match self {
            Self::Local(_) => None,
            Self::Ec2(ec2) => Some(ec2.images()),
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    /// Launches nothing from this capacity for a while, as instances of it are taken back.
    pub async fn close_offering(&self, offering: Offering) {
        match self {
            Self::Local(_) => {}
            Self::Ec2(ec2) => ec2.close_offering(offering).await,
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
    }

    /// Makes no instance of a launch that it has not begun to make. What then becomes of the launch is its
    /// answer.
    pub async fn withdraw(&self, launch: LaunchId) {
        match self {
            // It makes them at once.
            Self::Local(_) => {}
            Self::Ec2(ec2) => ec2.withdraw(launch).await,
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
    }

    /// Whether it takes any number of launches and ends at once, as it gathers them itself.
    #[must_use]
    pub fn gathers(&self) -> bool {
        matches!(self, Self::Ec2(_))
    }

    /// What the provider knows of one instance. None if it knows no such instance, or not yet: shortly
    /// after a launch that proves nothing.
    ///
    /// # Errors
    /// When it can't say at present.
    pub async fn describe(
        &self,
        instance: &InstanceId,
    ) -> Result<Option<InstanceFacts>, ProviderError> {
        match self {
            // Its instances enrol with a token that it gave them itself; nobody asks for more.
            Self::Local(_) => Ok(None),
            Self::Ec2(ec2) => ec2.describe(instance).await,
            #[cfg(test)]
            Self::Simulated(_) => Ok(None),
        }
    }

    /// Returns when an instance ended, as far as the provider sees it by itself. May never return.
    pub async fn something_ended(&self) {
        match self {
            Self::Local(local) => local.something_ended().await,
            Self::Ec2(_) => std::future::pending().await,
            #[cfg(test)]
            Self::Simulated(_) => std::future::pending().await,
        }
    }
}
