//! What an account has in a region before anything is launched.

use std::collections::BTreeMap;

use super::Region;
use super::templates::{Template, TemplateVersion};
use crate::fakes::aws::ids;

/// A subnet.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// `subnet-…`.
    pub id: String,
    /// Such as `eu-central-1a`.
    pub zone: String,
    /// Addresses left.
    pub free: u32,
    /// The second byte but one of its addresses.
    pub number: u8,
}

/// A machine image.
#[derive(Clone, Debug)]
pub struct Image {
    /// `ami-…`.
    pub id: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Region {
    pub(super) fn furnish(&mut self) {
        let (account, region) = (self.place.account.clone(), self.place.region.clone());
        for (number, letter) in (0..).zip(["a", "b", "c"]) {
            let id = ids::fixed("subnet-", &[&account, &region, letter]);
            let subnet = Subnet {
                id: id.clone(),
                zone: format!("{region}{letter}"),
                free: 4091,
                number,
            };
            self.subnets.insert(id, subnet);
        }
        for architecture in ["x86_64", "arm64"] {
            let id = ids::fixed("ami-", &[&account, &region, architecture]);
            let image = Image {
                id: id.clone(),
                architecture: architecture.to_owned(),
                tags: BTreeMap::new(),
            };
            self.images.insert(id, image);
        }
        let image_id = ids::fixed("ami-", &[&account, &region, "x86_64"]);
        self.templates.push(Template {
            id: ids::fixed("lt-", &[&account, &region, "muster"]),
            name: "muster".to_owned(),
            default: 1,
            versions: vec![TemplateVersion {
                image_id: Some(image_id),
                ..TemplateVersion::default()
            }],
        });
    }
}
