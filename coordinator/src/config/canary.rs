//! What a pool says of its canary.

use muster_core::CanaryRules;

use super::document::Value;
use super::ec2::{image_id, parameter, source};
use super::values::percent;
use crate::compute::ec2::ImageSource;

/// Reads `[pool.ec2.canary]`, beside the pool's own image as far as that could be read.
pub(super) fn read(
    value: &Value<'_>,
    own: Option<&ImageSource>,
) -> Option<(ImageSource, CanaryRules)> {
    let mut section = value.section();
    if !section.exists() {
        return None;
    }
    let image = section.optional("image", image_id);
    let parameter = section.optional("image_parameter", parameter);
    let share = section.default("share", 10, percent(1, 50));
    let least = section.default("least", 20, |value| value.integer(1, 10_000));
    let margin = section.default("rollback_at", 10, percent(0, 100));
    section.finish();
    let image = match (image?, parameter?) {
        (None, None) | (Some(_), Some(_)) => {
            section.refuse("one of image and image_parameter is needed");
            return None;
        }
        (image, parameter) => source(image, parameter)?,
    };
    if own == Some(&image) {
        section.refuse("is the pool's own image; a canary is another one");
        return None;
    }
    let rules = CanaryRules {
        share: share?,
        least: least?,
        margin: margin?,
    };
    Some((image, rules))
}
