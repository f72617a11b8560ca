//! What EC2 has left of each offering, as a test scripts it.

use super::Region;
use super::instance::Market;

/// Which offerings a script is about; `None` is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offering {
    /// Spot or on demand.
    pub market: Option<Market>,
    /// Such as `m7i.large`.
    pub instance_type: Option<String>,
    /// Such as `eu-central-1a`.
    pub zone: Option<String>,
}

impl Offering {
    /// All offerings.
    pub fn any() -> Self {
        Self::default()
    }

    /// One offering.
    pub fn of(market: Market, instance_type: &str, zone: &str) -> Self {
        Self {
            market: Some(market),
            instance_type: Some(instance_type.to_owned()),
            zone: Some(zone.to_owned()),
        }
    }

    /// All of one market.
    pub fn market(market: Market) -> Self {
        Self {
            market: Some(market),
            ..Self::default()
        }
    }

    /// All of one type.
    pub fn instance_type(instance_type: &str) -> Self {
        Self {
            instance_type: Some(instance_type.to_owned()),
            ..Self::default()
        }
    }

    fn covers(&self, market: Market, instance_type: &str, zone: &str) -> bool {
        self.market.is_none_or(|wanted| wanted == market)
            && self
                .instance_type
                .as_deref()
                .is_none_or(|wanted| wanted == instance_type)
            && self.zone.as_deref().is_none_or(|wanted| wanted == zone)
    }
}

/// What there is of an offering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// As much as is asked for.
    Unlimited,
    /// So many instances still; then `InsufficientInstanceCapacity`.
    Left(u32),
    /// So many instances still; what is missing is not spoken of.
    LeftInSilence(u32),
    /// None, with this error code.
    Refused(String),
}

/// What an offering gave.
pub(super) struct Grant {
    pub(super) count: u32,
    /// The code of the error about what is missing.
    pub(super) error: Option<String>,
}

impl Region {
    /// How many instances an offering could give now.
    pub(super) fn room(&self, market: Market, instance_type: &str, zone: &str) -> u32 {
        match self.script(market, instance_type, zone) {
            None => u32::MAX,
            Some(at) => match self.capacity[at].1 {
                Capacity::Unlimited => u32::MAX,
                Capacity::Left(left) | Capacity::LeftInSilence(left) => left,
                Capacity::Refused(_) => 0,
            },
        }
    }

    /// Takes up to `want` instances of an offering.
    pub(super) fn take(
        &mut self,
        market: Market,
        instance_type: &str,
        zone: &str,
        want: u32,
    ) -> Grant {
        let Some(at) = self.script(market, instance_type, zone) else {
            return Grant {
                count: want,
                error: None,
            };
        };
        let (count, error) = match &mut self.capacity[at].1 {
            Capacity::Unlimited => (want, None),
            Capacity::Left(left) => {
                let count = want.min(*left);
                *left -= count;
                let missing = count < want;
                (
                    count,
                    missing.then(|| "InsufficientInstanceCapacity".to_owned()),
                )
            }
            Capacity::LeftInSilence(left) => {
                let count = want.min(*left);
                *left -= count;
                (count, None)
            }
            Capacity::Refused(code) => (0, Some(code.clone())),
        };
        Grant { count, error }
    }

    /// The script of an offering: the last that covers it.
    fn script(&self, market: Market, instance_type: &str, zone: &str) -> Option<usize> {
        self.capacity
            .iter()
            .rposition(|(offering, _)| offering.covers(market, instance_type, zone))
    }
}

/// What EC2 writes beside a code.
pub(super) fn message(code: &str, instance_type: &str, zone: &str) -> String {
    match code {
        "InsufficientInstanceCapacity" => format!(
            "We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested ({zone})."
        ),
        "UnfulfillableCapacity" => "Unable to fulfill capacity due to your request configuration. Please adjust your request and try again.".to_owned(),
        "MaxSpotInstanceCountExceeded" => "Max spot instance count exceeded".to_owned(),
        "VcpuLimitExceeded" => "You have requested more vCPU capacity than your current vCPU limit allows for the instance bucket that the specified instance type belongs to.".to_owned(),
        "InvalidFleetConfiguration" => format!(
            "Your requested instance type ({instance_type}) is not supported in your requested Availability Zone ({zone})."
        ),
        "InsufficientFreeAddressesInSubnet" => "There are not enough free addresses in the subnet to satisfy the requested number of instances.".to_owned(),
        "SpotMaxPriceTooLow" => "Your Spot request price is lower than the minimum required Spot request fulfillment price.".to_owned(),
        other => format!("{other} for {instance_type} in {zone}"),
    }
}
