use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

use super::connection_limiter::ConnectionPermit;

/// The other end of a connection; an extension of each of its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address that the connection came from: the proxy's address if there is a proxy. Peers of a Unix
    /// socket have no address; as they are on this machine, theirs is 127.0.0.1 with port 0.
    pub address: SocketAddr,
    permits: Weak<ConnectionPermits>,
}

/// The permits that an open connection holds. They are released when it closes, also if it has become a WebSocket.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    _connection: ConnectionPermit,
    /// The permit of a client that opened a WebSocket through a proxy.
    client: OnceLock<ConnectionPermit>,
}

impl ConnectionPermits {
    pub(super) fn new(connection: ConnectionPermit) -> Arc<Self> {
        Arc::new(Self { _connection: connection, client: OnceLock::new() })
    }
}

impl Peer {
    pub(super) fn new(address: SocketAddr, permits: &Arc<ConnectionPermits>) -> Self {
        Self { address, permits: Arc::downgrade(permits) }
    }

    /// Whether the connection came over a Unix socket.
    pub fn is_on_unix_socket(&self) -> bool {
        // The port of a TCP peer is never 0.
        self.address.port() == 0
    }

    /// Holds the client's permit for as long as the connection is open.
    pub(super) fn hold_client_permit(&self, permit: ConnectionPermit) {
        if let Some(permits) = self.permits.upgrade() {
            // Called once at most: a connection becomes a WebSocket only once.
            let _ = permits.client.set(permit);
        }
    }
}
