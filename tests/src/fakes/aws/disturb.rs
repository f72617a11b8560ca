//! What a test lets happen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::FakeAws;
use super::ec2::Market;
use super::events::Told;
use super::faults::{Chaos, Fault};
use super::shared::Place;
use super::sts_lies::{Claim, StsLie};

impl FakeAws {
    /// Programs what goes wrong with the next calls of an action.
    pub fn inject(&self, fault: Fault) {
        self.shared.change(|state, _| state.faults.push(fault));
    }

    /// Lets the next call of `GetCallerIdentity` be answered with a lie.
    pub fn lie(&self, lie: &StsLie, claim: &Claim) {
        self.inject(Fault::next("GetCallerIdentity", lie.effect(claim)));
    }

    /// Lets things go wrong at random, or no more.
    pub fn set_chaos(&self, chaos: Option<Chaos>) {
        self.shared
            .change(|state, _| state.faults.set_random(chaos));
    }

    /// Forgets all faults that are still to happen.
    pub fn clear_faults(&self) {
        self.shared.change(|state, _| state.faults.clear());
    }

    /// Spot takes an instance back after `wait` (AWS: two minutes). The instance's metadata and the queue
    /// say so at once. `false` if there is no such spot instance.
    pub fn interrupt(&self, instance_id: &str, wait: Duration) -> bool {
        self.interrupt_telling(instance_id, wait, Told::Both)
    }

    /// Spot takes an instance back after `wait`, and not all are told. `false` if there is no such spot
    /// instance.
    pub fn interrupt_telling(&self, instance_id: &str, wait: Duration, told: Told) -> bool {
        self.shared
            .change(|state, now| state.interrupt(instance_id, wait, told, now))
    }

    /// Spot advises to move off an instance. `false` if there is no such spot instance.
    pub fn recommend_rebalance(&self, instance_id: &str) -> bool {
        self.shared
            .change(|state, now| state.recommend_rebalance(instance_id, now))
    }

    /// An instance's own system shuts down: the instance ends, or stops if its launch template says so.
    pub fn power_off(&self, instance_id: &str) {
        self.end(instance_id, "Client.InstanceInitiatedShutdown");
    }

    /// Someone else ends an instance, or the hardware does, with a reason such as
    /// `Client.UserInitiatedShutdown` or `Server.InternalError`.
    pub fn end(&self, instance_id: &str, reason: &str) {
        self.shared.change(|state, now| {
            let stages = state.options.stages;
            let Some(it) = state.instance_mut(instance_id) else {
                return;
            };
            if reason == "Client.InstanceInitiatedShutdown" && !it.ends_on_shutdown {
                it.stop(reason, now, stages.shutting_down);
            } else if !it.end(reason, now, &stages) {
                return;
            }
            let it = it.clone();
            state.tell(it, now);
        });
    }

    /// Whether `TerminateInstances` is refused for an instance.
    pub fn protect(&self, instance_id: &str, protected: bool) {
        self.shared.change(|state, _| {
            if let Some(it) = state.instance_mut(instance_id) {
                it.protected = protected;
            }
        });
    }

    /// Lets all calls know an instance from now on, whatever [`Stages::unknown`] says.
    ///
    /// [`Stages::unknown`]: super::Stages::unknown
    pub fn reveal(&self, instance_id: &str) {
        self.shared.change(|state, now| {
            if let Some(it) = state.instance_mut(instance_id) {
                it.reveal(now);
            }
        });
    }

    /// The next `count` instances end right after their launch, as when a volume's key can't be used.
    pub fn doom(&self, place: &Place, count: u32) {
        self.region(place, |region| region.doomed = count);
    }

    /// Launches an instance that nobody asked this fake for; answers its id.
    pub fn plant(
        &self,
        place: &Place,
        market: Market,
        instance_type: &str,
        tags: &BTreeMap<String, String>,
    ) -> Option<String> {
        self.shared
            .change(|state, now| state.plant(place, market, instance_type, tags, now))
    }
}
