//! What EC2 has: all that carries our tag, or a few that are named.

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Instance, InstanceLifecycleType, InstanceStateName, Reservation};
use jiff::Timestamp;
use muster_core::{InstanceId, Market, Offering};

use super::budget::Budgets;
use super::error::{self, CallError, Kind};

/// Instances in one page, the most that EC2 gives.
const PAGE: i32 = 1_000;
/// Pages of one listing, so that a wrong answer doesn't keep us for ever.
const PAGES: usize = 100;

/// The tag of the coordinator that made something.
pub(super) const TAG_COORDINATOR: &str = "muster:coordinator";
/// The tag of the pool that something was made for.
pub(super) const TAG_POOL: &str = "muster:pool";
/// The tag of the batch that something was made in.
pub(super) const TAG_BATCH: &str = "muster:batch";

/// An instance as EC2 describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: InstanceId,
    pub(super) state: State,
    pub(super) offering: Offering,
    pub(super) image: String,
    pub(super) subnet: String,
    pub(super) private_ip: Option<std::net::IpAddr>,
    pub(super) launched_at: Option<Timestamp>,
    pub(super) tags: BTreeMap<String, String>,
}

/// The state of an instance, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It starts or runs.
    Up,
    /// It is stopped, or stops: it can't go on by itself, and can be started again.
    Stopped,
    /// It is on its way out.
    ShuttingDown,
    /// It is gone.
    Terminated,
}

/// Describes what fits a filter on a tag or another field. What doesn't exist is simply not there.
pub(super) async fn describe(
    client: &Client,
    budgets: &Budgets,
    name: &str,
    values: Vec<String>,
) -> Result<Vec<Seen>, CallError> {
    let filter = Filter::builder()
        .name(name)
        .set_values(Some(values))
        .build();
    let mut found = Vec::new();
    let mut next = None;
    for _ in 0..PAGES {
        budgets.describe.spend().await;
        let page = client
            .describe_instances()
            .filters(filter.clone())
            .max_results(PAGE)
            .set_next_token(next.take())
            .send()
            .await
            .map_err(|error| {
                let error = error::of_call("DescribeInstances", &error);
                if error.kind == Kind::Throttled {
                    budgets.describe.refused();
                }
                error
            })?;
        let reservations = page.reservations().iter();
        found.extend(
            reservations
                .flat_map(Reservation::instances)
                .filter_map(seen),
        );
        next = page
            .next_token()
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        if next.is_none() {
            return Ok(found);
        }
    }
    Err(CallError::unknown(format!(
        "DescribeInstances: more than {PAGES} pages"
    )))
}

fn seen(instance: &Instance) -> Option<Seen> {
    let state = match instance.state()?.name()? {
        InstanceStateName::Pending | InstanceStateName::Running => State::Up,
        InstanceStateName::ShuttingDown => State::ShuttingDown,
        InstanceStateName::Terminated => State::Terminated,
        // Also a state that this version doesn't know: it is there, and doesn't run.
        _ => State::Stopped,
    };
    let market = match instance.instance_lifecycle() {
        Some(InstanceLifecycleType::Spot) => Market::Spot,
        _ => Market::OnDemand,
    };
    let tags = instance.tags().iter();
    Some(Seen {
        id: instance.instance_id()?.into(),
        state,
        offering: Offering {
            market,
            instance_type: instance
                .instance_type()
                .map(|name| name.as_str().to_owned())
                .unwrap_or_default(),
            zone: instance
                .placement()
                .and_then(|placement| placement.availability_zone())
                .unwrap_or_default()
                .to_owned(),
        },
        image: instance.image_id().unwrap_or_default().to_owned(),
        subnet: instance.subnet_id().unwrap_or_default().to_owned(),
        private_ip: instance.private_ip_address().and_then(|ip| ip.parse().ok()),
        launched_at: instance
            .launch_time()
            .and_then(|time| Timestamp::from_second(time.secs()).ok()),
        tags: tags
            .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
            .collect(),
    })
}
