//! What an instance reads of itself that was launched somewhere in particular.

use std::net::Ipv4Addr;
use std::sync::PoisonError;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CREDENTIALS_PATH, FakeImds, MAINTENANCE_PATH};

/// All that differs between instances.
#[derive(Clone, Debug)]
pub struct Profile {
    /// `i-…`.
    pub instance_id: String,
    /// Twelve digits.
    pub account_id: String,
    /// Such as `eu-central-1`.
    pub region: String,
    /// Such as `eu-central-1a`.
    pub zone: String,
    /// Such as `m7i.large`.
    pub instance_type: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// The machine image.
    pub image_id: String,
    /// Its address.
    pub private_ip: Ipv4Addr,
    /// Spot or on demand.
    pub spot: bool,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// The document with the instance identity role's credentials.
    pub identity_credentials: Value,
    /// The instance profile's role and the document with its credentials, if there is one.
    pub role: Option<(String, Value)>,
}

impl FakeImds {
    /// Makes an instance known with its own metadata.
    pub fn launch(&self, of: &Profile) {
        let launched = of.launched_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let address = of.private_ip.to_string();
        let document = json!({
            "accountId": of.account_id, "architecture": of.architecture,
            "availabilityZone": of.zone, "imageId": of.image_id, "instanceId": of.instance_id,
            "instanceType": of.instance_type, "pendingTime": launched, "privateIp": address,
            "region": of.region, "version": "2017-09-30",
        });
        let market = if of.spot { "spot" } else { "on-demand" };
        let info =
            json!({ "Code": "Success", "LastUpdated": launched, "AccountId": of.account_id });
        let text = |value: &Value| value.to_string();
        let mut values = vec![
            ("meta-data/instance-id".to_owned(), of.instance_id.clone()),
            (
                "meta-data/instance-type".to_owned(),
                of.instance_type.clone(),
            ),
            (
                "meta-data/instance-life-cycle".to_owned(),
                market.to_owned(),
            ),
            ("meta-data/ami-id".to_owned(), of.image_id.clone()),
            ("meta-data/local-ipv4".to_owned(), address),
            ("meta-data/placement/region".to_owned(), of.region.clone()),
            (
                "meta-data/placement/availability-zone".to_owned(),
                of.zone.clone(),
            ),
            (
                "meta-data/identity-credentials/ec2/info".to_owned(),
                text(&info),
            ),
            (
                "meta-data/services/domain".to_owned(),
                "amazonaws.com".to_owned(),
            ),
            ("meta-data/services/partition".to_owned(), "aws".to_owned()),
            (
                "dynamic/instance-identity/document".to_owned(),
                text(&document),
            ),
            (CREDENTIALS_PATH.to_owned(), text(&of.identity_credentials)),
            (MAINTENANCE_PATH.to_owned(), "[]".to_owned()),
        ];
        if let Some((role, credentials)) = &of.role {
            let base = "meta-data/iam/security-credentials/";
            values.push((base.to_owned(), role.clone()));
            values.push((format!("{base}{role}"), text(credentials)));
        }
        for (path, value) in values {
            self.set(&of.instance_id, &path, &value);
        }
    }

    /// Forgets an instance: all its paths answer 404.
    pub fn remove_instance(&self, instance_id: &str) {
        let all = self.instances.lock();
        all.unwrap_or_else(PoisonError::into_inner)
            .remove(instance_id);
    }
}
