use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter};

use super::client_address::TrustedProxies;
use super::connection_limiter::{ConnectionLimiter, ConnectionLimits};
use super::tls::Tls;
use crate::limits::Limit;

const REFUSED: &str = "belfry_connections_refused_total";

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    describe_counter!(
        REFUSED,
        "Connections that were closed, and requests of clients behind a proxy that were rejected, because of a \
         limit, by its setting."
    );
}

/// The settings of a [`Server`](super::Server).
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// How long a client may take to send a request head. For the first head this includes the time since the
    /// connection was accepted.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests. A proxy in front must close its idle
    /// connections earlier, or it sends requests into connections that are being closed here.
    pub keep_alive: Duration,
    /// How many connections may be open at once.
    pub limits: ConnectionLimits,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// If set, all connections use TLS.
    pub tls: Option<Arc<Tls>>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            limits: ConnectionLimits::default(),
            trusted_proxies: TrustedProxies::default(),
            tls: None,
        }
    }
}

/// The state that all connections of a server share.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) settings: ServerSettings,
    pub(super) limiter: Arc<ConnectionLimiter>,
    is_on_unix_socket: bool,
}

/// The maximum size of a request line and its header fields, in bytes. Larger heads are answered with 431
/// (RFC 6585, section 5). The largest valid token has 8 KiB, which leaves room for cookies.
pub(super) const MAX_HEAD_BYTES: usize = 32 * 1024;

impl ServerState {
    pub(super) fn new(settings: ServerSettings, is_on_unix_socket: bool) -> Self {
        let limiter = ConnectionLimiter::new(settings.limits);
        Self { settings, limiter, is_on_unix_socket }
    }

    /// Whether a peer is trusted to forward the requests of clients. Every peer on a Unix socket is trusted,
    /// because only the owner and the group of the socket's file can connect.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.is_on_unix_socket || self.settings.trusted_proxies.contains(peer)
    }
}

/// Counts and logs a connection or request that was rejected because of a limit.
pub(super) fn record_rejected(limit: Limit, client: IpAddr) {
    counter!(REFUSED, "reason" => limit.label()).increment(1);
    limit.record_exceeded_by_address(client.to_canonical());
}
