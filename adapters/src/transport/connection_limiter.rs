//! Limits on open connections, in total and per client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::{Limit, network_of};

/// How many connections may be open at once.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections in total.
    pub connections: usize,
    /// Connections from one address. Clients behind a trusted proxy share its connections, so their
    /// requests in flight and WebSockets are counted instead. An IPv6 client is counted by its /64,
    /// because a single customer gets a network of that size (RFC 6177).
    pub per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { connections: 20_000, per_address: 1_000 }
    }
}

/// Counts open connections and enforces the limits.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    limits: ConnectionLimits,
    open: AtomicUsize,
    /// The number of permits by client network; a network without permits has no entry. A connection counts
    /// for at most one network: its own or, behind a proxy, that of the client whose request it carries
    /// (HTTP/1.1 has one at a time). The limit on connections therefore bounds the map.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let (open, by_address) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { limits, open, by_address })
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A permit for a connection, or the limit that it would exceed. `address` is `None` for a trusted proxy, whose
    /// connections do not count per address.
    pub(super) fn acquire_connection(
        self: &Arc<Self>,
        address: Option<IpAddr>,
    ) -> Result<ConnectionPermit, Limit> {
        // Counted before the checks: on an error the permit is dropped, which decrements the count again.
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut permit =
            ConnectionPermit { limiter: self.clone(), is_connection: true, address: None };
        if open >= self.limits.connections {
            return Err(Limit::Connections);
        }
        permit.address = address.map(|it| self.count_address(it)).transpose()?;
        Ok(permit)
    }

    /// A permit for a request of a client behind a proxy, or the limit that it would exceed.
    pub(super) fn acquire_client(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<ConnectionPermit, Limit> {
        let address = Some(self.count_address(address)?);
        Ok(ConnectionPermit { limiter: self.clone(), is_connection: false, address })
    }

    fn count_address(&self, address: IpAddr) -> Result<IpAddr, Limit> {
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

/// The permit of an open connection, or of a client's request or WebSocket behind a proxy. Dropping it releases
/// the permit.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    is_connection: bool,
    /// The network for which this permit is counted; `None` for the connection of a proxy.
    address: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if self.is_connection {
            self.limiter.open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(address) = self.address {
            let mut by_address = self.limiter.by_address.lock();
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

    fn limiter(connections: usize, per_address: usize) -> Arc<ConnectionLimiter> {
        ConnectionLimiter::new(ConnectionLimits { connections, per_address })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn closed_connection_releases_its_permit() {
        let limiter = limiter(2, 9);
        let one = limiter.acquire_connection(Some(ip("10.0.0.1"))).unwrap();
        let _two = limiter.acquire_connection(None).unwrap();
        assert_eq!(limiter.acquire_connection(None).unwrap_err(), Limit::Connections);
        assert_eq!(limiter.open(), 2);
        drop(one);
        assert!(limiter.acquire_connection(None).is_ok());
        assert_eq!(limiter.open(), 1);
    }

    #[test]
    fn limit_per_address_does_not_affect_other_addresses_and_unused_ones_are_removed() {
        let limiter = limiter(9, 1);
        let one = limiter.acquire_connection(Some(ip("10.0.0.1"))).unwrap();
        assert_eq!(
            limiter.acquire_connection(Some(ip("10.0.0.1"))).unwrap_err(),
            Limit::ConnectionsPerAddress
        );
        assert_eq!(
            limiter.acquire_client(ip("10.0.0.1")).unwrap_err(),
            Limit::ConnectionsPerAddress
        );
        assert_eq!(limiter.open(), 1, "a rejected connection is not counted");
        let other = limiter.acquire_client(ip("10.0.0.2")).unwrap();
        drop((one, other));
        assert!(limiter.by_address.lock().is_empty());
        assert!(limiter.acquire_connection(Some(ip("10.0.0.1"))).is_ok());
    }
}
