//! The addresses that connections come from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// What one customer of a provider gets: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Network {
    /// The network of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Self::V6(network)
            }
        }
    }
}

/// The connections of each [`Network`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<HashMap<Network, u32>>>);

/// One connection of a network.
#[derive(Debug)]
pub(crate) struct OfAddress(Addresses, Network);

impl Addresses {
    /// Counts a connection of `address`. `None` if its network has `most` already.
    pub(crate) fn enter(&self, address: IpAddr, most: u32) -> Option<OfAddress> {
        let network = Network::of(address);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.entry(network).or_default();
        (*count < most).then(|| {
            *count += 1;
            OfAddress(self.clone(), network)
        })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut known = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_connections_of_a_network_count_together() {
        let addresses = Addresses::default();
        let held = addresses.enter(address("2001:db8::1"), 1).expect("the first");
        assert!(addresses.enter(address("2001:db8::ffff:1"), 1).is_none(), "the same 64 bits");
        addresses.enter(address("2001:db8:0:1::1"), 1).expect("another network");
        drop(held);
        let _v4 = addresses.enter(address("192.0.2.1"), 1).expect("the first");
        assert!(addresses.enter(address("::ffff:192.0.2.1"), 1).is_none(), "the same address");
        addresses.enter(address("192.0.2.2"), 1).expect("another address");
        addresses.enter(address("2001:db8::ffff:1"), 1).expect("the first has left");
    }
}
