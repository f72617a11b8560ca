//! What happens to instances by themselves, and who is told.

use jiff::Timestamp;
use serde_json::json;

use super::Region;
use super::instance::{Instance, InstanceState, Life, Market};
use crate::fakes::aws::events;
use crate::fakes::aws::keys::{Credentials, Principal};
use crate::fakes::aws::options::Stages;
use crate::fakes::aws::shared::{Place, State};
use crate::fakes::clock::after;
use crate::fakes::imds::Profile;

/// How long an instance's credentials live.
const CREDENTIALS_LIVE: std::time::Duration = std::time::Duration::from_hours(6);

impl Region {
    /// When something happens next by itself.
    pub(in crate::fakes::aws) fn next_deadline(&self) -> Option<Timestamp> {
        self.instances
            .values()
            .flat_map(|it| {
                let due = it.due.map(|(at, _)| at);
                [due, it.interrupted_at, it.forgotten_at]
            })
            .flatten()
            .min()
    }

    /// Takes all steps that are due; answers the instances after each.
    fn advance(&mut self, now: Timestamp, stages: &Stages) -> Vec<Instance> {
        let mut steps = Vec::new();
        for it in self.instances.values_mut() {
            loop {
                if let Some((at, state)) = it.due
                    && at <= now
                {
                    it.due = None;
                    it.state = state;
                    if state == InstanceState::Terminated {
                        if let Some(subnet) = self.subnets.get_mut(&it.subnet_id) {
                            subnet.free += 1;
                        }
                        it.forgotten_at = Some(after(at, stages.terminated));
                    }
                } else if let Some(at) = it.interrupted_at
                    && at <= now
                {
                    it.interrupted_at = None;
                    if !it.end("Server.SpotInstanceTermination", at, stages) {
                        continue;
                    }
                } else {
                    break;
                }
                steps.push(it.clone());
            }
        }
        self.instances
            .retain(|_, it| it.forgotten_at.is_none_or(|at| at > now));
        steps
    }
}

impl State {
    /// When something happens next by itself.
    pub(in crate::fakes::aws) fn next_deadline(&self) -> Option<Timestamp> {
        self.regions
            .values()
            .filter_map(Region::next_deadline)
            .min()
    }

    /// Brings all instances up to `now`.
    pub(in crate::fakes::aws) fn advance(&mut self, now: Timestamp) {
        let stages = self.options.stages;
        let mut steps = Vec::new();
        for region in self.regions.values_mut() {
            steps.extend(region.advance(now, &stages));
        }
        for it in steps {
            self.tell(it, now);
        }
    }

    /// An instance has come to be: it gets credentials, and can read its metadata.
    pub(in crate::fakes::aws) fn welcome(&mut self, it: Instance, now: Timestamp) {
        let options = self.options.clone();
        let (account, id) = (&it.place.account, &it.id);
        let until = after(options.wall.now(), CREDENTIALS_LIVE);
        let identity = Credentials {
            access_key_id: it.identity_key.clone(),
            ..Credentials::until(until)
        };
        let instance = |role: &str, user_id: String| Principal {
            account: account.clone(),
            arn: format!("arn:aws:sts::{account}:assumed-role/{role}/{id}"),
            user_id,
            instance: true,
        };
        let caller = instance(
            "aws:ec2-instance",
            format!("{account}:aws:ec2-instance:{id}"),
        );
        self.keys.add(identity.clone(), caller);
        let role = options.instance_role.as_ref().map(|role| {
            let credentials = Credentials::until(until);
            let caller = instance(role, format!("AROAMUSTERRUNNERROLE1:{id}"));
            self.keys.add(credentials.clone(), caller);
            (role.clone(), credentials)
        });
        if let Some(imds) = &options.imds {
            let now = options.wall.now();
            imds.launch(&Profile {
                instance_id: id.clone(),
                account_id: account.clone(),
                region: it.place.region.clone(),
                zone: it.zone.clone(),
                instance_type: it.instance_type.clone(),
                architecture: it.architecture.clone(),
                image_id: it.image_id.clone(),
                private_ip: it.private_ip,
                spot: it.market == Market::Spot,
                launched_at: it.launched_at,
                identity_credentials: identity.metadata(now),
                role: role.map(|(name, credentials)| (name, credentials.metadata(now))),
            });
            imds.delay_credentials(id, options.late_credentials);
        }
        self.tell(it, now);
    }

    /// An instance has come to another state.
    pub(in crate::fakes::aws) fn tell(&mut self, it: Instance, now: Timestamp) {
        if self.options.state_notifications {
            let detail = json!({ "instance-id": it.id, "state": it.state.as_str() });
            self.notify(&it, events::STATE_CHANGE, &detail, now);
        }
        let life = match it.state {
            InstanceState::Pending => Life::Launched(it),
            InstanceState::Running => Life::Running(it),
            InstanceState::ShuttingDown | InstanceState::Stopping => Life::Ending(it),
            InstanceState::Terminated | InstanceState::Stopped => {
                if let Some(imds) = &self.options.imds {
                    imds.remove_instance(&it.id);
                }
                Life::Ended(it)
            }
        };
        self.lives.push(life);
    }

    /// The region that an instance is in.
    pub(in crate::fakes::aws) fn home_of(&self, instance_id: &str) -> Option<Place> {
        let mut regions = self.regions.values();
        let home = regions.find(|region| region.instances.contains_key(instance_id));
        home.map(|region| region.place.clone())
    }

    /// An instance, wherever it is.
    pub(in crate::fakes::aws) fn instance_mut(
        &mut self,
        instance_id: &str,
    ) -> Option<&mut Instance> {
        let mut regions = self.regions.values_mut();
        regions.find_map(|region| region.instances.get_mut(instance_id))
    }
}
