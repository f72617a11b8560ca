//! How much one address may hold at a time, so that nobody keeps the others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shares of something, counted by address. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PerAddress {
    most: usize,
    /// A lock, as a share is given back wherever it is dropped. It is held for an instant.
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// What an address holds until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: PerAddress,
    address: IpAddr,
}

impl PerAddress {
    /// At most so many shares for each address.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            held: Arc::default(),
        }
    }

    /// A share, if the address has fewer than it may have. IPv6 addresses count by their network of 64
    /// bits: whoever has one has all in it.
    pub(super) fn take(&self, address: IpAddr) -> Option<Share> {
        let address = counted(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share {
            of: self.clone(),
            address,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// Turns at something, so many at a time for each address. Whoever comes when all are taken waits for those of
/// its own address only. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    at_a_time: usize,
    /// A lock, as a turn is given back wherever it is dropped. It is held for an instant.
    addresses: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

/// One's turn, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    // In this order: the address is forgotten once nobody of it is left.
    _permit: Option<OwnedSemaphorePermit>,
    _queue: Queue,
}

/// A place in the queue of an address.
#[derive(Debug)]
struct Queue {
    of: Turns,
    address: IpAddr,
}

impl Turns {
    /// At most so many at a time for each address.
    pub(super) fn new(at_a_time: usize) -> Self {
        Self {
            at_a_time,
            addresses: Arc::default(),
        }
    }

    /// Waits for a turn. Addresses count as in [`PerAddress::take`].
    pub(super) async fn wait(&self, address: IpAddr) -> Turn {
        let address = counted(address);
        let turns = {
            let mut addresses = self
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let turns = addresses.entry(address);
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(self.at_a_time))))
        };
        let queue = Queue {
            of: self.clone(),
            address,
        };
        Turn {
            // It is never closed.
            _permit: turns.acquire_owned().await.ok(),
            _queue: queue,
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut addresses = self
            .of
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let turns = addresses.get(&self.address);
        if turns.is_some_and(|turns| Arc::strong_count(turns) == 1) {
            addresses.remove(&self.address);
        }
    }
}

fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_shares_and_leaves_the_others_theirs() {
        let shares = PerAddress::new(2);
        let first = shares.take(ip("192.0.2.1")).unwrap();
        let _second = shares.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(shares.take(ip("192.0.2.1")).is_none());
        let _other = shares.take(ip("192.0.2.2")).unwrap();
        drop(first);
        let _again = shares.take(ip("192.0.2.1")).unwrap();
        assert!(shares.take(ip("192.0.2.1")).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let shares = PerAddress::new(1);
        let _share = shares.take(ip("2001:db8::1")).unwrap();
        assert!(shares.take(ip("2001:db8::ffff:1")).is_none());
        assert!(shares.take(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let shares = PerAddress::new(1);
        drop(shares.take(ip("192.0.2.1")));
        assert!(shares.held.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_waits_for_its_own_address_only() {
        let turns = Turns::new(2);
        let first = turns.wait(ip("192.0.2.1")).await;
        let _second = turns.wait(ip("192.0.2.1")).await;
        assert!(turns.wait(ip("192.0.2.1")).now_or_never().is_none());
        let _other = turns.wait(ip("192.0.2.2")).await;
        let mut third = std::pin::pin!(turns.wait(ip("192.0.2.1")));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        third.await;
    }

    #[tokio::test]
    async fn an_address_of_which_nobody_is_left_is_forgotten() {
        let turns = Turns::new(1);
        let first = turns.wait(ip("192.0.2.1")).await;
        assert!(turns.wait(ip("192.0.2.1")).now_or_never().is_none());
        assert_eq!(turns.addresses.lock().unwrap().len(), 1);
        drop(first);
        assert!(turns.addresses.lock().unwrap().is_empty());
    }
}
