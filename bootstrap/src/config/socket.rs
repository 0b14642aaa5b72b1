use std::time::Duration;

use belfry_adapters::inbound::socketio::SocketIoSettings;
use belfry_adapters::inbound::socketio::engine::EngineSettings;
use belfry_adapters::limits::PerSecond;
use serde::Deserialize;

use super::error::{BadSettings, at_least_one, longer_than_zero};
use super::limits::{Limits, unless_zero};
use super::values;

/// `socket.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Socket {
    #[serde(deserialize_with = "values::duration")]
    pub ping_interval: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub ping_timeout: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub connect_timeout: Duration,
    #[serde(deserialize_with = "values::or_text")]
    pub queue: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub queue_bytes: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub max_payload: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub token_in_query: bool,
    #[serde(deserialize_with = "values::or_text")]
    pub catch_up_limit: usize,
}

impl Socket {
    pub(super) fn check(&self) -> Result<(), BadSettings> {
        longer_than_zero([
            ("socket.ping_interval", self.ping_interval),
            ("socket.ping_timeout", self.ping_timeout),
            ("socket.connect_timeout", self.connect_timeout),
        ])?;
        at_least_one([
            ("socket.queue", self.queue as u64),
            ("socket.queue_bytes", self.queue_bytes as u64),
            ("socket.max_payload", self.max_payload as u64),
        ])
    }

    /// Settings of the Socket.IO server, with its limits.
    pub fn server_settings(&self, limits: &Limits) -> SocketIoSettings {
        SocketIoSettings {
            engine: EngineSettings {
                ping_interval: self.ping_interval,
                ping_timeout: self.ping_timeout,
                queue: self.queue,
                queue_bytes: self.queue_bytes,
                max_payload: self.max_payload,
                polling_sessions: unless_zero(limits.connections),
                ..EngineSettings::default()
            },
            connect_timeout: self.connect_timeout,
            token_in_query: self.token_in_query,
            handshakes: PerSecond::new(limits.handshakes_per_second),
            handshakes_per_address: PerSecond::new(limits.handshakes_per_address),
            messages: PerSecond::new(limits.messages_per_second),
        }
    }
}
