//! What a test sees of the fake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::FakeAws;
use super::buckets::Bucket;
use super::ec2::{Fleet, Instance, Life, Subnet, Template};
use super::keys::Credentials;
use super::shared::{Call, Place, Shared};
use super::sts::Session;
use crate::fakes::{NotInTime, changes};

/// The lives of all instances as they go on, from the start; nothing is left out.
pub struct Lives {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    stop: CancellationToken,
    at: usize,
}

impl Lives {
    /// The next step; `None` once the fake stops.
    pub async fn next(&mut self) -> Option<Life> {
        loop {
            self.changed.borrow_and_update();
            if let Some(step) = self
                .shared
                .quietly(|state| state.lives.get(self.at).cloned())
            {
                self.at += 1;
                return Some(step);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = self.changed.changed() => changed.ok()?,
            }
        }
    }
}

impl FakeAws {
    /// The lives of all instances, for a world that runs something on them.
    pub fn lives(&self) -> Lives {
        Lives {
            shared: Arc::clone(&self.shared),
            changed: self.shared.changed.subscribe(),
            stop: self.stop.clone(),
            at: 0,
        }
    }

    /// All calls, the oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.quietly(|state| state.calls.clone())
    }

    /// All calls of one action, the oldest first.
    pub fn calls_of(&self, action: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.action == action);
        calls
    }

    /// How often an action was carried out without an error, whether or not the answer got through.
    pub fn served(&self, action: &str) -> u64 {
        self.shared
            .quietly(|state| state.served.get(action).copied().unwrap_or(0))
    }

    /// All actions carried out, with their counts.
    pub fn all_served(&self) -> BTreeMap<String, u64> {
        self.shared.quietly(|state| state.served.clone())
    }

    /// All instances that EC2 still describes, in the order of their ids.
    pub fn instances(&self) -> Vec<Instance> {
        self.shared.quietly(|state| {
            let regions = state.regions.values();
            regions
                .flat_map(|region| region.instances.values().cloned())
                .collect()
        })
    }

    /// The instances that are not on their way out.
    pub fn alive(&self) -> Vec<Instance> {
        let mut all = self.instances();
        all.retain(|it| !it.state.is_ending());
        all
    }

    /// An instance as it is now.
    pub fn instance(&self, instance_id: &str) -> Option<Instance> {
        self.shared
            .quietly(|state| state.instance_mut(instance_id).cloned())
    }

    /// All fleets, those of each account and region in their order.
    pub fn fleets(&self) -> Vec<Fleet> {
        self.shared.quietly(|state| {
            let regions = state.regions.values();
            regions
                .flat_map(|region| region.fleets.iter().cloned())
                .collect()
        })
    }

    /// The subnets, the zones in their order.
    pub fn subnets(&self, place: &Place) -> Vec<Subnet> {
        self.shared.quietly(|state| {
            let region = state.regions.get(place);
            let mut all: Vec<Subnet> = region
                .into_iter()
                .flat_map(|region| region.subnets.values().cloned())
                .collect();
            all.sort_by(|a, b| a.zone.cmp(&b.zone).then(a.id.cmp(&b.id)));
            all
        })
    }

    /// The image that is there from the start for an architecture (`x86_64` or `arm64`).
    pub fn image(&self, place: &Place, architecture: &str) -> Option<String> {
        self.shared.quietly(|state| {
            let mut images = state.regions.get(place)?.images.values();
            let found = images.find(|image| image.architecture == architecture);
            found.map(|image| image.id.clone())
        })
    }

    /// A launch template by its name.
    pub fn template(&self, place: &Place, name: &str) -> Option<Template> {
        self.shared.quietly(|state| {
            let mut templates = state.regions.get(place)?.templates.iter();
            templates.find(|template| template.name == name).cloned()
        })
    }

    /// All roles assumed, the oldest first.
    pub fn sessions(&self) -> Vec<Session> {
        self.shared.quietly(|state| state.sessions.clone())
    }

    /// The credentials of an instance's identity role, as its metadata has them.
    pub fn identity_credentials(&self, instance_id: &str) -> Option<Credentials> {
        self.shared.quietly(|state| {
            let account = state.home_of(instance_id)?.account;
            let arn = format!("arn:aws:sts::{account}:assumed-role/aws:ec2-instance/{instance_id}");
            state.keys.credentials_of(&arn)
        })
    }

    /// How many messages of a queue can be received, and how many are hidden.
    pub fn queue_depth(&self, place: &Place) -> (usize, usize) {
        self.shared.quietly(|state| {
            let now = state.options.clock.now();
            let queue = state.queues.get(place);
            queue.map_or((0, 0), |queue| queue.depth(now))
        })
    }

    /// The request bucket of a call, such as `CreateFleet`; for calls that describe without filter and
    /// pagination there is another, such as `DescribeInstances unfiltered`. `None` before the first call.
    pub fn bucket(&self, place: &Place, call: &str) -> Option<Bucket> {
        self.shared.quietly(|state| state.buckets.get(place, call))
    }

    /// How many requests found their bucket empty.
    pub fn throttled(&self) -> u64 {
        self.shared.quietly(|state| state.buckets.refused())
    }

    /// What departed from AWS's models so far, in words.
    pub fn violations(&self) -> Vec<String> {
        self.shared.quietly(|state| state.violations.clone())
    }

    /// Takes the violations, for tests that provoke some.
    pub fn take_violations(&self) -> Vec<String> {
        self.shared
            .quietly(|state| std::mem::take(&mut state.violations))
    }

    /// Waits until `look` finds something; it is asked again after each change.
    ///
    /// # Errors
    ///
    /// If it does not within `wait`.
    pub async fn wait_for<R>(
        &self,
        what: &str,
        wait: Duration,
        look: impl Fn() -> Option<R>,
    ) -> Result<R, NotInTime> {
        changes::wait_for(&self.shared.changed, what, wait, look).await
    }
}
