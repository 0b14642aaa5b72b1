//! Limits on open connections, in total and per client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::{Limit, SITE_TIMES, network_of, site_of};

/// How many connections may be open at once.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections in total.
    pub connections: usize,
    /// Connections from one address. Clients behind a trusted proxy share its connections, so their
    /// requests in flight and WebSockets are counted instead. An IPv6 client is counted by its /64,
    /// because a single customer gets a network of that size (RFC 6177). Five times as many may come from
    /// one site (an IPv4 /24 or an IPv6 /48).
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
    /// A connection counts for at most one network: its own or, if it comes from a proxy, that of the client whose
    /// request it carries (HTTP/1.1 has one request at a time). The limit on connections therefore bounds the counts.
    counts: Mutex<Counts>,
}

/// The numbers of permits by the network and the site of clients. One without permits has no entry.
#[derive(Debug, Default)]
struct Counts {
    by_network: HashMap<IpAddr, usize>,
    by_site: HashMap<IpAddr, usize>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let (open, counts) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { limits, open, counts })
    }

    /// The number of open connections.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A permit for a connection, or the limit that it would exceed. `address` is `None` for a trusted proxy, whose
    /// connections do not count per address.
    pub(super) fn acquire_connection(
        self: &Arc<Self>,
        address: Option<IpAddr>,
    ) -> Result<ConnectionPermit, Limit> {
        // The connection is counted before the checks. On an error, dropping the permit decrements the count again.
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

    /// Counts an address for its network and site.
    fn count_address(&self, address: IpAddr) -> Result<IpAddr, Limit> {
        let (network, site) = (network_of(address), site_of(address));
        let max_of_site = self.limits.per_address.saturating_mul(SITE_TIMES.get() as usize);
        let counts = &mut *self.counts.lock();
        let open = |counts: &HashMap<_, _>, key| counts.get(&key).copied().unwrap_or_default();
        if open(&counts.by_network, network) >= self.limits.per_address {
            return Err(Limit::ConnectionsPerAddress);
        }
        if open(&counts.by_site, site) >= max_of_site {
            return Err(Limit::ConnectionsPerSite);
        }
        *counts.by_network.entry(network).or_default() += 1;
        *counts.by_site.entry(site).or_default() += 1;
        Ok(address)
    }
}

fn release(counts: &mut HashMap<IpAddr, usize>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// The permit of an open connection, or of a client's request or WebSocket behind a proxy. Dropping it releases
/// the permit.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    is_connection: bool,
    /// The address for whose network and site this permit is counted; `None` for the connection of a proxy.
    address: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if self.is_connection {
            self.limiter.open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(address) = self.address {
            let counts = &mut *self.limiter.counts.lock();
            release(&mut counts.by_network, network_of(address));
            release(&mut counts.by_site, site_of(address));
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
    fn limit_per_address_does_not_affect_other_addresses_and_unused_entries_are_removed() {
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
        assert!(limiter.counts.lock().by_network.is_empty());
        assert!(limiter.counts.lock().by_site.is_empty());
        assert!(limiter.acquire_connection(Some(ip("10.0.0.1"))).is_ok());
    }

    #[test]
    fn one_site_does_not_take_all_connections() {
        let limiter = limiter(1_000, 2);
        let mut open = Vec::new();
        // 256 networks of one customer's /56.
        for n in 0..256 {
            let address = IpAddr::from([0x2001, 0xdb8, 1, n, 0, 0, 0, 1]);
            open.extend(limiter.acquire_connection(Some(address)));
        }
        assert_eq!(open.len(), 10, "five times the limit of an address");
        let rejected = limiter.acquire_client(ip("2001:db8:1:ff::1")).unwrap_err();
        assert_eq!(rejected, Limit::ConnectionsPerSite);
        let _other = limiter.acquire_connection(Some(ip("2001:db8:2::1"))).unwrap();
        open.pop();
        assert!(limiter.acquire_client(ip("2001:db8:1:ff::1")).is_ok());
    }
}
