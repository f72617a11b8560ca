//! What is not asked for at present, since it had nothing: offerings, subnets, classes of types whose quota
//! is used up, whole markets.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use muster_core::{Market, Offering};
use tokio::time::Instant;

use super::quota::Class;

/// Why something is closed, and until when.
#[derive(Clone, Debug)]
struct Closing {
    until: Instant,
    why: String,
}

/// All that is closed. In memory only: after a restart EC2 says it again.
#[derive(Debug, Default)]
pub(super) struct Closed {
    offerings: HashMap<Offering, Closing>,
    subnets: HashMap<String, Closing>,
    classes: HashMap<(Market, Class), Closing>,
    markets: HashMap<Market, Closing>,
}

impl Closed {
    pub(super) fn close_offering(
        &mut self,
        offering: Offering,
        duration: Duration,
        why: impl Into<String>,
    ) {
        close(&mut self.offerings, offering, duration, why.into());
    }

    pub(super) fn close_subnet(
        &mut self,
        subnet: String,
        duration: Duration,
        why: impl Into<String>,
    ) {
        close(&mut self.subnets, subnet, duration, why.into());
    }

    pub(super) fn close_class(
        &mut self,
        market: Market,
        class: Class,
        duration: Duration,
        why: impl Into<String>,
    ) {
        close(&mut self.classes, (market, class), duration, why.into());
    }

    pub(super) fn close_market(
        &mut self,
        market: Market,
        duration: Duration,
        why: impl Into<String>,
    ) {
        close(&mut self.markets, market, duration, why.into());
    }

    /// Why an offering is closed; none if it is open.
    pub(super) fn offering(&self, offering: &Offering) -> Option<&str> {
        look(&self.offerings, offering)
    }

    /// Why a subnet is closed; none if it is open.
    pub(super) fn subnet(&self, subnet: &str) -> Option<&str> {
        look(&self.subnets, &subnet.to_owned())
    }

    /// Why a class of types is closed on a market; none if it is open.
    pub(super) fn class(&self, market: Market, class: &Class) -> Option<&str> {
        look(&self.classes, &(market, class.clone()))
    }

    /// Why a market is closed; none if it is open.
    pub(super) fn market(&self, market: Market) -> Option<&str> {
        look(&self.markets, &market)
    }
}

fn close<K: Eq + Hash>(map: &mut HashMap<K, Closing>, key: K, duration: Duration, why: String) {
    let now = Instant::now();
    map.retain(|_, closing| closing.until > now);
    let until = now + duration;
    let closing = Closing { until, why };
    let known = map.entry(key).or_insert_with(|| closing.clone());
    // A notice of the interruption of one instance doesn't shorten what was closed for longer.
    if known.until <= until {
        *known = closing;
    }
}

fn look<'a, K: Eq + Hash>(map: &'a HashMap<K, Closing>, key: &K) -> Option<&'a str> {
    let closing = map.get(key)?;
    (closing.until > Instant::now()).then_some(closing.why.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_is_closed_opens_again_by_itself() {
        let mut closed = Closed::default();
        let offering = Offering {
            market: Market::Spot,
            instance_type: "m7i.large".to_owned(),
            zone: "eu-west-1a".to_owned(),
        };
        closed.close_offering(offering.clone(), 3 * MINUTE, "nothing left");
        closed.close_offering(offering.clone(), MINUTE, "taken back");
        closed.close_subnet("subnet-a".to_owned(), MINUTE, "no address");
        closed.close_class(Market::Spot, Class::of("g5.xlarge"), MINUTE, "quota");
        closed.close_market(Market::Spot, MINUTE, "no role");
        assert_eq!(closed.offering(&offering), Some("nothing left"));
        assert_eq!(closed.subnet("subnet-a"), Some("no address"));
        let class = |market, name| closed.class(market, &Class::of(name));
        assert_eq!(class(Market::Spot, "g6.xlarge"), Some("quota"));
        assert_eq!(class(Market::Spot, "m7i.large"), None);
        assert_eq!(class(Market::OnDemand, "g5.xlarge"), None);
        assert_eq!(closed.market(Market::Spot), Some("no role"));
        assert_eq!(closed.market(Market::OnDemand), None);

        tokio::time::advance(MINUTE).await;
        assert_eq!(closed.subnet("subnet-a"), None);
        assert_eq!(closed.market(Market::Spot), None);
        assert_eq!(closed.class(Market::Spot, &Class::of("g5.xlarge")), None);
        assert_eq!(closed.offering(&offering), Some("nothing left"));
        tokio::time::advance(2 * MINUTE).await;
        assert_eq!(closed.offering(&offering), None);
    }
}
