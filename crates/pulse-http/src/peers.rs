//! Limits the open connections of each peer address, so that one peer cannot take all of a small port.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The peers with open connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    /// `None` counts nothing.
    limit: Option<usize>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// An open connection of a peer. It no longer counts when this is dropped.
pub(crate) struct PeerGuard {
    peers: Peers,
    address: IpAddr,
}

impl Peers {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self { limit, open: Arc::default() }
    }

    /// Counts a connection; `None` if the peer has too many.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<PeerGuard> {
        if let Some(limit) = self.limit {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(address.to_canonical()).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        Some(PeerGuard { peers: self.clone(), address: address.to_canonical() })
    }
}

impl Drop for PeerGuard {
    fn drop(&mut self) {
        if self.peers.limit.is_none() {
            return;
        }
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
    const MAPPED: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1));
    const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    #[test]
    fn peer_at_its_limit_does_not_affect_others() {
        let peers = Peers::new(Some(2));
        let (first, second) = (peers.admit(ONE), peers.admit(MAPPED));
        assert!(first.is_some() && second.is_some());
        assert!(peers.admit(ONE).is_none() && peers.admit(MAPPED).is_none());
        assert!(peers.admit(TWO).is_some());
        drop(first);
        assert!(peers.admit(ONE).is_some());
        drop(second);
        assert!(peers.open.lock().expect("no panic").is_empty(), "closed connections leave nothing");
    }

    #[test]
    fn peers_without_a_limit_are_not_counted() {
        let peers = Peers::new(None);
        let all: Vec<_> = (0..1000).map(|_| peers.admit(ONE)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(peers.open.lock().expect("no panic").is_empty());
    }
}
