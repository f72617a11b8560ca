//! What a test puts into the fake before and while it runs.

use std::time::Duration;

use super::ec2::{Capacity, Image, Offering, Region, Subnet, Template, TemplateVersion};
use super::keys::{Credentials, Principal};
use super::shared::Place;
use super::sqs;
use super::ssm::ParameterKind;
use super::sts::Role;
use super::{FakeAws, Options};

impl FakeAws {
    /// How the fake is set up.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The first account and region.
    pub fn home(&self) -> Place {
        let options = self.options();
        let first = |all: &[String]| all.first().cloned().unwrap_or_default();
        Place {
            account: first(&options.accounts),
            region: first(&options.regions),
        }
    }

    /// What a process needs in its environment so that an AWS SDK in it speaks to the fake, as the user
    /// of the static key.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let options = self.options();
        vec![
            ("AWS_ENDPOINT_URL", self.url.clone()),
            ("AWS_REGION", self.home().region),
            ("AWS_ACCESS_KEY_ID", options.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", options.secret_access_key.clone()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Adds a role that may be assumed, with the external id `external_id` if there is one.
    pub fn add_role(&self, arn: &str, external_id: Option<&str>) {
        self.shared.change(|state, _| {
            state.roles.push(Role {
                arn: arn.to_owned(),
                external_id: external_id.map(str::to_owned),
                longest_session: Duration::from_hours(1),
            });
        });
    }

    /// Adds a key and whose it is.
    pub fn add_key(&self, credentials: Credentials, principal: Principal) {
        self.shared
            .change(|state, _| state.keys.add(credentials, principal));
    }

    /// Takes a key away: nobody has it any more.
    pub fn remove_key(&self, access_key_id: &str) {
        self.shared
            .change(|state, _| state.keys.remove(access_key_id));
    }

    /// Makes a key run out now.
    pub fn expire_key(&self, access_key_id: &str) {
        self.shared.change(|state, _| {
            let now = state.options.wall.now();
            state.keys.expire(access_key_id, now);
        });
    }

    /// Adds a subnet.
    pub fn add_subnet(&self, place: &Place, subnet: Subnet) {
        self.region(place, |region| {
            region.subnets.insert(subnet.id.clone(), subnet);
        });
    }

    /// Adds a machine image.
    pub fn add_image(&self, place: &Place, image: Image) {
        self.region(place, |region| {
            region.images.insert(image.id.clone(), image);
        });
    }

    /// Takes a machine image away.
    pub fn remove_image(&self, place: &Place, image_id: &str) {
        self.region(place, |region| {
            region.images.remove(image_id);
        });
    }

    /// Adds a launch template, or replaces the one of the same name.
    pub fn put_template(&self, place: &Place, template: Template) {
        self.region(place, |region| {
            region.templates.retain(|had| had.name != template.name);
            region.templates.push(template);
        });
    }

    /// Adds a version to a launch template.
    pub fn add_template_version(&self, place: &Place, name: &str, version: TemplateVersion) {
        self.region(place, |region| {
            let found = region.templates.iter_mut().find(|had| had.name == name);
            if let Some(template) = found {
                template.versions.push(version);
            }
        });
    }

    /// Takes a launch template away.
    pub fn remove_template(&self, place: &Place, name: &str) {
        self.region(place, |region| {
            region.templates.retain(|had| had.name != name);
        });
    }

    /// Scripts what there is of offerings. Of several scripts that fit, the last one counts.
    pub fn set_capacity(&self, place: &Place, offering: Offering, capacity: Capacity) {
        self.region(place, |region| region.capacity.push((offering, capacity)));
    }

    /// Forgets all scripts: there is as much as anyone asks for.
    pub fn clear_capacity(&self, place: &Place) {
        self.region(place, |region| region.capacity.clear());
    }

    /// Adds a parameter, or a version of it; answers the version.
    pub fn put_parameter(
        &self,
        place: &Place,
        name: &str,
        kind: ParameterKind,
        value: &str,
    ) -> usize {
        self.shared.change(|state, now| {
            let parameters = state.parameters.entry(place.clone()).or_default();
            parameters.put(name, kind, value, now)
        })
    }

    /// Takes a parameter away.
    pub fn delete_parameter(&self, place: &Place, name: &str) {
        self.shared.change(|state, _| {
            let parameters = state.parameters.entry(place.clone()).or_default();
            parameters.delete(name);
        });
    }

    /// The address of the queue of an account and region.
    pub fn queue_url(&self, place: &Place) -> String {
        sqs::url(&self.url, place, &self.options().queue)
    }

    /// Puts a message on a queue.
    pub fn send_message(&self, place: &Place, body: &str) {
        self.shared.change(|state, now| {
            let queue = state.queues.entry(place.clone()).or_default();
            queue.send(body, now);
        });
    }

    /// The next `count` messages of a queue come twice.
    pub fn send_twice(&self, place: &Place, count: u32) {
        self.shared.change(|state, _| {
            state.queues.entry(place.clone()).or_default().twice = count;
        });
    }

    pub(super) fn region(&self, place: &Place, step: impl FnOnce(&mut Region)) {
        self.shared.change(|state, _| {
            let region = state.regions.entry(place.clone());
            step(region.or_insert_with(|| Region::furnished(place.clone())));
        });
    }
}
