//! Which pools a fleet's instances come from.

use super::Region;
use super::capacity::message;
use super::instance::Market;
use super::pool::Pool;
use crate::fakes::aws::faults::Faults;

/// What a request got in one market.
#[derive(Default)]
pub(super) struct Allocation {
    /// Pools and how many instances each gave.
    pub(super) given: Vec<(Pool, u32)>,
    /// Pools that gave too few, with code and message.
    pub(super) errors: Vec<(Pool, String, String)>,
}

impl Region {
    /// Takes `want` instances out of the pools, in the strategy's order. What one pool lacks, the next
    /// gives.
    pub(super) fn allocate(
        &mut self,
        faults: &mut Faults,
        pools: &[Pool],
        market: Market,
        strategy: &str,
        want: u32,
    ) -> Allocation {
        let mut out = Allocation::default();
        let mut left = want;
        for (number, pool) in self
            .ordered(pools, market, strategy, want)
            .iter()
            .enumerate()
        {
            if left == 0 {
                break;
            }
            if let Some((code, message)) = &pool.broken {
                out.errors
                    .push((pool.clone(), (*code).to_owned(), message.clone()));
                continue;
            }
            // Diversified: an equal share for each pool that is still to come.
            let still = u32::try_from(pools.len() - number).unwrap_or(1);
            let share = if strategy == "diversified" {
                left.div_ceil(still)
            } else {
                left
            };
            let (count, error) = self.draw(faults, pool, market, share);
            if count > 0 {
                out.given.push((pool.clone(), count));
                left -= count;
            }
            if let Some(code) = error {
                let text = message(&code, &pool.instance_type, &pool.zone);
                out.errors.push((pool.clone(), code, text));
            }
        }
        out
    }

    fn draw(
        &mut self,
        faults: &mut Faults,
        pool: &Pool,
        market: Market,
        want: u32,
    ) -> (u32, Option<String>) {
        if faults.no_capacity() {
            return (0, Some("InsufficientInstanceCapacity".to_owned()));
        }
        let free = self.subnets.get(&pool.subnet_id).map_or(0, |it| it.free);
        let room = want.min(free);
        let granted = self.take(market, &pool.instance_type, &pool.zone, room);
        if let Some(subnet) = self.subnets.get_mut(&pool.subnet_id) {
            subnet.free -= granted.count;
        }
        let full = (room < want).then(|| "InsufficientFreeAddressesInSubnet".to_owned());
        (granted.count, granted.error.or(full))
    }

    /// The pools in the order in which a strategy tries them.
    fn ordered(&self, pools: &[Pool], market: Market, strategy: &str, want: u32) -> Vec<Pool> {
        let mut pools = pools.to_vec();
        let room = |pool: &Pool| {
            let room = self.room(market, &pool.instance_type, &pool.zone);
            room.min(want)
        };
        let by_priority = |a: &Pool, b: &Pool| a.priority.total_cmp(&b.priority);
        match strategy {
            "lowest-price" => pools.sort_by_key(|pool| pool.price),
            "prioritized" => pools.sort_by(by_priority),
            "capacity-optimized-prioritized" => {
                pools.sort_by(|a, b| room(b).cmp(&room(a)).then(by_priority(a, b)));
            }
            "price-capacity-optimized" => {
                pools.sort_by(|a, b| room(b).cmp(&room(a)).then(a.price.cmp(&b.price)));
            }
            // capacity-optimized, diversified
            _ => pools.sort_by_key(|pool| std::cmp::Reverse(room(pool))),
        }
        pools
    }
}
