//! What to ask EC2 for: which market, and which types in which subnets.

use std::collections::BTreeMap;

use muster_core::{LaunchFailure, Market, Offering, Shape};
use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use super::closed::Closed;
use super::quota::Class;
use super::settings::Ec2Pool;

/// Most offerings in one request. More slow EC2 down and add nothing (Karpenter's limit too).
const MOST: usize = 60;
/// Most reasons that are told.
const MOST_REASONS: usize = 3;

/// One offering in a request, with the subnet that stands for its zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice {
    pub(super) instance_type: String,
    pub(super) subnet: String,
    pub(super) zone: String,
}

/// What to do for launches of one pool and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Ask for these, best first.
    Ask {
        market: Market,
        choices: Vec<Choice>,
    },
    /// There is nothing to ask for.
    Nothing {
        failure: LaunchFailure,
        detail: String,
    },
}

impl Choice {
    /// What it is, bought on this market.
    pub(super) fn offering(&self, market: Market) -> Offering {
        Offering {
            market,
            instance_type: self.instance_type.clone(),
            zone: self.zone.clone(),
        }
    }
}

/// The markets to try, in order.
fn markets(pool: &Ec2Pool, shape: &Shape) -> Vec<Market> {
    match (shape.market, pool.market) {
        (Some(Market::OnDemand), _) | (None, Market::OnDemand) => vec![Market::OnDemand],
        (Some(Market::Spot), _) | (None, Market::Spot) if pool.on_demand_fallback => {
            vec![Market::Spot, Market::OnDemand]
        }
        (Some(Market::Spot), _) | (None, Market::Spot) => vec![Market::Spot],
    }
}

/// Makes the plan: the first market in which anything is open, and all of it that fits.
pub(super) fn plan(pool: &Ec2Pool, shape: &Shape, catalog: &Catalog, closed: &Closed) -> Plan {
    let types = catalog.fitting(&pool.types, shape);
    if types.is_empty() {
        return Plan::Nothing {
            failure: LaunchFailure::Unfit,
            detail: format!(
                "no type of the pool that EC2 has in this region is big enough for {shape}: {}",
                pool.types.join(", ")
            ),
        };
    }
    let zones = zones(pool, catalog);
    if zones.is_empty() {
        return Plan::Nothing {
            failure: LaunchFailure::Permanent,
            detail: format!(
                "EC2 has none of the pool's subnets in this region: {}",
                pool.subnets.join(", ")
            ),
        };
    }
    let mut reasons = Reasons::default();
    let mut quota = false;
    for market in markets(pool, shape) {
        if let Some(why) = closed.market(market) {
            quota = true;
            reasons.add(format!("{market}: {why}"));
            continue;
        }
        let mut choices = Vec::new();
        for instance_type in &types {
            let class = Class::of(instance_type);
            if let Some(why) = closed.class(market, &class) {
                quota = true;
                reasons.add(format!("{market} {class}: {why}"));
                continue;
            }
            for (zone, subnets) in &zones {
                let Some(subnet) = subnets.iter().find(|name| closed.subnet(name).is_none()) else {
                    let why = subnets.iter().find_map(|name| closed.subnet(name));
                    reasons.add(format!("{zone}: {}", why.unwrap_or_default()));
                    continue;
                };
                let choice = Choice {
                    instance_type: (*instance_type).to_owned(),
                    subnet: (*subnet).to_owned(),
                    zone: (*zone).to_owned(),
                };
                let offering = choice.offering(market);
                match closed.offering(&offering) {
                    Some(why) => reasons.add(format!("{offering}: {why}")),
                    None => choices.push(choice),
                }
            }
        }
        choices.truncate(MOST);
        if !choices.is_empty() {
            return Plan::Ask { market, choices };
        }
    }
    Plan::Nothing {
        failure: if quota {
            LaunchFailure::Quota
        } else {
            LaunchFailure::Capacity
        },
        detail: reasons.told(),
    }
}

/// The pool's subnets by zone; EC2 takes one subnet per zone in a request.
fn zones<'a>(pool: &'a Ec2Pool, catalog: &'a Catalog) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut zones: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for subnet in &pool.subnets {
        if let Some(zone) = catalog.zones.get(subnet) {
            zones.entry(zone).or_default().push(subnet);
        }
    }
    zones
}

/// Why there is nothing, in a sentence of bounded length.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn add(&mut self, reason: String) {
        if !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }

    fn told(&self) -> String {
        let shown: Vec<_> = self.0.iter().take(MOST_REASONS).cloned().collect();
        let more = self.0.len().saturating_sub(MOST_REASONS);
        let mut text = shown.join("; ");
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;
    use crate::compute::ec2::catalog::Size;
    use crate::compute::ec2::settings::{ImageSource, SpotStrategy, Template, TemplateKey};

    const MINUTE: Duration = Duration::from_secs(60);

    fn pool() -> Ec2Pool {
        Ec2Pool {
            template: Template {
                key: TemplateKey::Name("muster".to_owned()),
                version: "7".to_owned(),
            },
            image: ImageSource::Template,
            canary: None,
            subnets: ["subnet-a1", "subnet-a2", "subnet-b"]
                .map(str::to_owned)
                .into(),
            types: ["m7i.large", "c7i.large"].map(str::to_owned).into(),
            market: Market::Spot,
            on_demand_fallback: true,
            strategy: SpotStrategy::PriceCapacityOptimized,
        }
    }

    fn catalog() -> Catalog {
        let size = |cpus, gib: u64| Size {
            cpus,
            memory_mib: gib * 1024,
        };
        Catalog {
            zones: [("subnet-a1", "a"), ("subnet-a2", "a"), ("subnet-b", "b")]
                .map(|(subnet, zone)| (subnet.to_owned(), zone.to_owned()))
                .into(),
            sizes: [("m7i.large", size(2, 8)), ("c7i.large", size(2, 4))]
                .map(|(name, size)| (name.to_owned(), size))
                .into(),
        }
    }

    fn made(pool: &Ec2Pool, shape: &Shape, closed: &Closed) -> String {
        match plan(pool, shape, &catalog(), closed) {
            Plan::Ask { market, choices } => {
                let choices: Vec<_> = choices
                    .iter()
                    .map(|choice| format!("{}@{}", choice.instance_type, choice.subnet))
                    .collect();
                format!("{market}: {}", choices.join(" "))
            }
            Plan::Nothing { failure, detail } => format!("{failure:?}: {detail}"),
        }
    }

    fn offering(market: Market, instance_type: &str, zone: &str) -> Offering {
        Offering {
            market,
            instance_type: instance_type.to_owned(),
            zone: zone.to_owned(),
        }
    }

    #[tokio::test]
    async fn all_that_is_open_is_asked_for_once_in_each_zone() {
        assert_eq!(
            made(&pool(), &Shape::default(), &Closed::default()),
            "spot: m7i.large@subnet-a1 m7i.large@subnet-b c7i.large@subnet-a1 c7i.large@subnet-b"
        );
    }

    #[tokio::test]
    async fn what_is_closed_is_left_out_and_on_demand_comes_last() {
        let mut closed = Closed::default();
        closed.close_subnet("subnet-a1".to_owned(), MINUTE, "no address");
        closed.close_offering(offering(Market::Spot, "m7i.large", "a"), MINUTE, "empty");
        let any = Shape::default();
        assert_eq!(
            made(&pool(), &any, &closed),
            "spot: m7i.large@subnet-b c7i.large@subnet-a2 c7i.large@subnet-b"
        );
        for (name, zone) in [("m7i.large", "b"), ("c7i.large", "a"), ("c7i.large", "b")] {
            closed.close_offering(offering(Market::Spot, name, zone), MINUTE, "empty");
        }
        assert_eq!(
            made(&pool(), &any, &closed),
            "on-demand: m7i.large@subnet-a2 m7i.large@subnet-b c7i.large@subnet-a2 c7i.large@subnet-b"
        );
        let strict = Ec2Pool {
            on_demand_fallback: false,
            ..pool()
        };
        assert_eq!(
            made(&strict, &any, &closed),
            "Capacity: spot m7i.large in a: empty; spot m7i.large in b: empty; \
             spot c7i.large in a: empty; and 1 more"
        );
    }

    #[tokio::test]
    async fn a_closed_market_or_class_is_a_matter_of_quota() {
        let mut closed = Closed::default();
        closed.close_market(Market::Spot, MINUTE, "MaxFleetCountExceeded");
        let any = Shape::default();
        assert!(made(&pool(), &any, &closed).starts_with("on-demand: "));
        let (own, other) = (Class::of("m7i.large"), Class::of("g5.xlarge"));
        closed.close_class(Market::OnDemand, other, MINUTE, "VcpuLimitExceeded");
        assert!(made(&pool(), &any, &closed).starts_with("on-demand: "));
        closed.close_class(Market::OnDemand, own, MINUTE, "VcpuLimitExceeded");
        assert_eq!(
            made(&pool(), &any, &closed),
            "Quota: spot: MaxFleetCountExceeded; on-demand Standard: VcpuLimitExceeded"
        );
    }

    #[rstest]
    #[case(Some(Market::OnDemand), Market::Spot, true, &[Market::OnDemand])]
    #[case(Some(Market::Spot), Market::OnDemand, true, &[Market::Spot, Market::OnDemand])]
    #[case(Some(Market::Spot), Market::OnDemand, false, &[Market::Spot])]
    #[case(None, Market::OnDemand, true, &[Market::OnDemand])]
    #[case(None, Market::Spot, false, &[Market::Spot])]
    fn the_job_is_asked_first_and_then_the_pool(
        #[case] asked: Option<Market>,
        #[case] market: Market,
        #[case] on_demand_fallback: bool,
        #[case] expected: &[Market],
    ) {
        let pool = Ec2Pool {
            market,
            on_demand_fallback,
            ..pool()
        };
        let shape = Shape {
            market: asked,
            ..Shape::default()
        };
        assert_eq!(markets(&pool, &shape), expected);
    }

    #[tokio::test]
    async fn what_never_fits_is_for_somebody_to_change() {
        let big = Shape {
            cpus: Some(64),
            labels: ["muster/cpu=64".to_owned()].into(),
            ..Shape::default()
        };
        assert_eq!(
            made(&pool(), &big, &Closed::default()),
            "Unfit: no type of the pool that EC2 has in this region is big enough for \
             muster/cpu=64: m7i.large, c7i.large"
        );
        let nowhere = Ec2Pool {
            subnets: vec!["subnet-z".to_owned()],
            ..pool()
        };
        assert_eq!(
            made(&nowhere, &Shape::default(), &Closed::default()),
            "Permanent: EC2 has none of the pool's subnets in this region: subnet-z"
        );
    }
}
