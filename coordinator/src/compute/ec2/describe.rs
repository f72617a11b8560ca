//! What EC2 has: all that carries our tag, or a few that are named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Instance, InstanceLifecycleType, InstanceStateName, Reservation};
use jiff::Timestamp;
use muster_core::{InstanceId, Market, Offering, Origin, PoolName};

use super::batcher::{Asked, Gather};
use super::budget::Budgets;
use super::error::{self, CallError, Kind};
use crate::compute::{InstanceFacts, InstanceState};

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
    pub(super) state: InstanceState,
    pub(super) offering: Offering,
    pub(super) image: String,
    pub(super) subnet: String,
    pub(super) private_ip: Option<std::net::IpAddr>,
    pub(super) launched_at: Option<Timestamp>,
    pub(super) tags: BTreeMap<String, String>,
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
        InstanceStateName::Pending => InstanceState::Pending,
        InstanceStateName::Running => InstanceState::Running,
        InstanceStateName::ShuttingDown => InstanceState::ShuttingDown,
        InstanceStateName::Terminated => InstanceState::Terminated,
        InstanceStateName::Stopping => InstanceState::Stopping,
        InstanceStateName::Stopped => InstanceState::Stopped,
        _ => InstanceState::Unknown,
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

/// How questions about single instances are gathered: a thousand boot as one burst, and enrol as one.
pub(super) const GATHER: Gather = Gather {
    window: Duration::from_millis(20),
    // Values of one filter, as EC2 limits them.
    most: 200,
};

/// What is known of an instance, if anything is.
pub(super) type Answer = Result<Option<InstanceFacts>, CallError>;

/// Answers questions about single instances with one call.
pub(super) async fn facts(
    client: Client,
    budgets: Arc<Budgets>,
    batch: Vec<Asked<InstanceId, Answer>>,
) {
    let ids = batch.iter().map(|asked| asked.question.to_string());
    // By id, one that EC2 doesn't know would fail the call for all.
    let described = describe(&client, &budgets, "instance-id", ids.collect()).await;
    let found: Result<BTreeMap<InstanceId, Seen>, CallError> =
        described.map(|seen| seen.into_iter().map(|one| (one.id.clone(), one)).collect());
    for asked in batch {
        let answer = match &found {
            Ok(found) => Ok(found.get(&asked.question).and_then(Seen::facts)),
            Err(error) => Err(error.clone()),
        };
        // Who asked has left.
        let _ = asked.answer.send(answer);
    }
}

impl Seen {
    /// What it was launched as by its tags, if its batch is one of these.
    pub(super) fn origin(&self, lost: &BTreeSet<String>) -> Option<Origin> {
        if !lost.contains(self.tags.get(TAG_BATCH)?) {
            return None;
        }
        Some(Origin {
            pool: PoolName::new(self.tags.get(TAG_POOL)?),
            since: self.launched_at?,
            offering: Some(self.offering.clone()),
        })
    }

    fn facts(&self) -> Option<InstanceFacts> {
        let tag = |name: &str| self.tags.get(name).cloned();
        Some(InstanceFacts {
            state: self.state,
            image: self.image.clone(),
            subnet: Some(self.subnet.clone()).filter(|subnet| !subnet.is_empty()),
            private_ip: self.private_ip,
            launched_at: self.launched_at?,
            coordinator: tag(TAG_COORDINATOR),
            pool: tag(TAG_POOL),
            batch: tag(TAG_BATCH),
            launched_as: None,
        })
    }
}
