use std::time::Duration;

use super::engine::EngineSettings;
use crate::limits::PerSecond;

/// How the Socket.IO server is run.
#[derive(Debug, Clone, Copy)]
pub struct SocketIoSettings {
    /// How often a device is pinged.
    pub ping_interval: Duration,
    /// How long a device may take to answer.
    pub ping_timeout: Duration,
    /// How long a transport may be open without a namespace.
    pub connect_timeout: Duration,
    /// How long an upgrade from polling to a WebSocket may take.
    pub upgrade_timeout: Duration,
    /// How many packets are queued for a device that does not read.
    pub queue: usize,
    /// How many bytes are queued for a device that does not read.
    pub queue_bytes: usize,
    /// The largest message that a device may send, in bytes; by polling, all that it sends at once.
    pub max_payload: usize,
    /// How long that may take to arrive by polling.
    pub body_timeout: Duration,
    /// The most sessions that were opened by polling, including those that have since been upgraded.
    pub polling_sessions: usize,
    /// Whether a token may stand in the query (`?token=`).
    pub token_in_query: bool,
    /// How many handshakes a second are accepted; `None` for any number.
    pub handshakes: Option<PerSecond>,
    /// How many of them from one address.
    pub handshakes_per_address: Option<PerSecond>,
    /// How many messages a second each device may send.
    pub messages: Option<PerSecond>,
}

impl Default for SocketIoSettings {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            queue: 512,
            queue_bytes: 1024 * 1024,
            max_payload: 256 * 1024,
            body_timeout: Duration::from_secs(10),
            polling_sessions: 20_000,
            token_in_query: false,
            handshakes: None,
            handshakes_per_address: None,
            messages: None,
        }
    }
}

impl SocketIoSettings {
    /// Those that concern Engine.IO.
    pub const fn engine(&self) -> EngineSettings {
        EngineSettings {
            ping_interval: self.ping_interval,
            ping_timeout: self.ping_timeout,
            upgrade_timeout: self.upgrade_timeout,
            max_payload: self.max_payload,
            body_timeout: self.body_timeout,
            queue: self.queue,
            queue_bytes: self.queue_bytes,
            polling_sessions: self.polling_sessions,
        }
    }
}
