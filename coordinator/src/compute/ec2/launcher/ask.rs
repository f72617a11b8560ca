//! What launches ask EC2 for.

use muster_core::LaunchFailure;

use super::Waiter;
use crate::clock;
use crate::compute::ec2::batch::{Alike, Batch, Failed, FleetRequest, new_token};
use crate::compute::ec2::closed::Closed;
use crate::compute::ec2::describe::{TAG_BATCH, TAG_COORDINATOR, TAG_POOL};
use crate::compute::ec2::knowledge::Knowledge;
use crate::compute::ec2::plan::{Plan, plan};
use crate::compute::ec2::settings::{Ec2Settings, ImageSource};

/// Makes a batch of launches that are alike; or says why there is nothing to ask for.
pub(super) fn batch_of(
    settings: &Ec2Settings,
    known: &Knowledge,
    closed: &Closed,
    alike: &Alike,
    waiters: &[Waiter],
) -> Result<Batch, Failed> {
    let permanent = |detail: String| Failed {
        failure: LaunchFailure::Permanent,
        detail,
    };
    let (name, shape) = (&alike.pool, &alike.shape);
    let (Some(pool), Some(catalog)) = (settings.pools.get(name), &known.catalog) else {
        return Err(permanent(format!("pool {name} is not launched on EC2")));
    };
    let (market, choices) = match plan(pool, shape, catalog, closed) {
        Plan::Ask { market, choices } => (market, choices),
        Plan::Nothing { failure, detail } => return Err(Failed { failure, detail }),
    };
    let token = new_token().ok_or_else(|| permanent("no random bytes".to_owned()))?;
    let tags = [
        (TAG_COORDINATOR, settings.coordinator.clone()),
        (TAG_POOL, name.to_string()),
        (TAG_BATCH, token.clone()),
        ("Name", format!("muster {name}")),
    ];
    Ok(Batch {
        token,
        account: settings.name.clone(),
        created_at: clock::now(),
        pool: name.clone(),
        shape: shape.clone(),
        canary: alike.canary.clone(),
        launches: waiters.iter().map(|waiter| waiter.launch.clone()).collect(),
        request: FleetRequest {
            market,
            template: pool.template.clone(),
            image: match (&alike.canary, &pool.image) {
                (Some(canary), _) => Some(canary.to_string()),
                (None, ImageSource::Template) => None,
                (None, ImageSource::Id(id)) => Some(id.clone()),
                (None, ImageSource::Parameter(name)) => known.images.get(name).cloned(),
            },
            strategy: pool.strategy,
            choices,
            tags: tags.map(|(key, value)| (key.to_owned(), value)).into(),
        },
        outcome: None,
    })
}
