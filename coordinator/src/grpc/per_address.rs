//! How much one address may hold at a time, so that nobody keeps the others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

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
}
