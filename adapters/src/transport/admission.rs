//! How many connections there may be, altogether and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::{Limit, network_of};

/// The most that is open at once.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections altogether.
    pub connections: usize,
    /// Connections of one address, or requests under way of one client behind a trusted proxy. An
    /// IPv6 client counts by its /64, as a whole network of that size is given to a single customer
    /// (RFC 6177).
    pub per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { connections: 20_000, per_address: 1_000 }
    }
}

/// Who is let in, and who is there.
#[derive(Debug)]
pub(super) struct Admission {
    limits: ConnectionLimits,
    open: AtomicUsize,
    /// An address is here while it has a place. A connection holds one place, and one more for the
    /// request on it, so that the bound on connections bounds this.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let (open, by_address) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { limits, open, by_address })
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A place for a connection, or the limit that it would exceed; without an address where those of its
    /// peer are not counted.
    pub(super) fn connection(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Limit> {
        // Counted first: the place that is dropped below counts it out again.
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut place = Place { admission: self.clone(), is_connection: true, address: None };
        if open >= self.limits.connections {
            return Err(Limit::Connections);
        }
        place.address = address.map(|it| self.count_in(it)).transpose()?;
        Ok(place)
    }

    /// A place for a request of a client whose connection is a proxy's, or the limit that it would exceed.
    pub(super) fn client(self: &Arc<Self>, address: IpAddr) -> Result<Place, Limit> {
        let address = Some(self.count_in(address)?);
        Ok(Place { admission: self.clone(), is_connection: false, address })
    }

    fn count_in(&self, address: IpAddr) -> Result<IpAddr, Limit> {
        let network = network_of(address);
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(network).or_default();
        if *count >= self.limits.per_address {
            return Err(Limit::ConnectionsPerAddress);
        }
        *count += 1;
        Ok(network)
    }
}

/// Somebody who was let in; counts itself out when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    is_connection: bool,
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_connection {
            self.admission.open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(address) = self.address {
            let mut by_address = self.admission.by_address.lock();
            if let Some(count) = by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, per_address: usize) -> Arc<Admission> {
        Admission::new(ConnectionLimits { connections, per_address })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let admission = admission(2, 9);
        let one = admission.connection(Some(ip("10.0.0.1"))).unwrap();
        let _two = admission.connection(None).unwrap();
        assert_eq!(admission.connection(None).unwrap_err(), Limit::Connections);
        assert_eq!(admission.open(), 2);
        drop(one);
        assert!(admission.connection(None).is_ok());
        assert_eq!(admission.open(), 1);
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others_and_is_forgotten_when_it_has_none() {
        let admission = admission(9, 1);
        let one = admission.connection(Some(ip("10.0.0.1"))).unwrap();
        assert_eq!(
            admission.connection(Some(ip("10.0.0.1"))).unwrap_err(),
            Limit::ConnectionsPerAddress
        );
        assert_eq!(admission.client(ip("10.0.0.1")).unwrap_err(), Limit::ConnectionsPerAddress);
        assert_eq!(admission.open(), 1, "who was refused is not counted");
        let other = admission.client(ip("10.0.0.2")).unwrap();
        drop((one, other));
        assert!(admission.by_address.lock().is_empty());
        assert!(admission.connection(Some(ip("10.0.0.1"))).is_ok());
    }
}
