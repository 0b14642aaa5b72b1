use std::time::Duration;

/// The settings of Engine.IO sessions.
#[derive(Debug, Clone, Copy)]
pub struct EngineSettings {
    /// The time between two pings of a client.
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    pub ping_timeout: Duration,
    /// How long an upgrade to a WebSocket may take. After that the session continues polling.
    pub upgrade_timeout: Duration,
    /// The largest message of a client that is connected to a namespace, in bytes; by polling, the largest
    /// body of a request.
    pub max_payload: usize,
    /// The largest message of a client that is connected to no namespace yet, in bytes; `max_payload` if that
    /// is less. Such clients are not authenticated, and each connection may hold that much.
    pub max_first_payload: usize,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// How many packets may be queued for a client that does not read.
    pub queue: usize,
    /// How many bytes may be queued for a client that does not read.
    pub queue_bytes: usize,
    /// The maximum number of sessions that were opened by polling, including upgraded ones.
    pub polling_sessions: usize,
}

impl EngineSettings {
    /// The largest message of a client until it is connected to a namespace, in bytes.
    pub(super) fn first_payload(&self) -> usize {
        self.max_payload.min(self.max_first_payload)
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            max_payload: 256 * 1024,
            // Room for several tokens.
            max_first_payload: 32 * 1024,
            body_timeout: Duration::from_secs(10),
            queue: 512,
            queue_bytes: 1024 * 1024,
            polling_sessions: 20_000,
        }
    }
}
