use std::sync::Arc;
use std::time::Duration;

use belfry_adapters::inbound::socketio::SocketIoSettings;
use belfry_adapters::inbound::socketio::engine::EngineSettings;
use belfry_adapters::limits::PerSecond;
use belfry_adapters::outbound::socketio::{NamespacePath, Namespaces, Refusal};
use belfry_adapters::wire::socket::{EventName, MessageName, Preset, SocketNames, SocketTable};
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
    #[serde(deserialize_with = "values::parsed_list")]
    pub namespaces: Vec<NamespacePath>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub compat: Vec<Preset>,
    pub refusal: OnRefusal,
    #[serde(default)]
    pub events: SocketEvents,
    #[serde(default)]
    pub messages: SocketMessages,
}

/// The response to a device whose connect is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRefusal {
    /// A `connect_error` with a code.
    ConnectError,
    /// A connect, and then a disconnect by the server.
    Disconnect,
}

/// `socket.events.*`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct SocketEvents {
    #[serde(deserialize_with = "values::parsed_list")]
    pub new: Vec<EventName>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub unread_count: Vec<EventName>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub marked_read: Vec<EventName>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub deleted: Vec<EventName>,
}

/// `socket.messages.*`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct SocketMessages {
    #[serde(deserialize_with = "values::parsed_list")]
    pub mark_read: Vec<MessageName>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub mark_all_read: Vec<MessageName>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub unread_count: Vec<MessageName>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub delete: Vec<MessageName>,
    #[serde(deserialize_with = "values::parsed_list")]
    pub list: Vec<MessageName>,
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
        ])?;
        self.names()?;
        self.namespace_list().map(drop)
    }

    /// The names and shapes of events and messages.
    pub fn names(&self) -> Result<SocketTable, BadSettings> {
        let SocketEvents { new, unread_count, marked_read, deleted } = self.events.clone();
        let messages = self.messages.clone();
        let names = SocketNames {
            presets: self.compat.clone(),
            events: [new, unread_count, marked_read, deleted],
            messages: [
                messages.mark_read,
                messages.mark_all_read,
                messages.unread_count,
                messages.delete,
                messages.list,
            ],
        };
        SocketTable::new(&names).map_err(|problem| BadSettings::new(problem.to_string()))
    }

    fn namespace_list(&self) -> Result<Namespaces, BadSettings> {
        Namespaces::with(&self.namespaces)
            .map_err(|problem| BadSettings::new(format!("socket.namespaces: {problem}")))
    }

    /// Settings of the Socket.IO server, with its limits.
    pub fn server_settings(&self, limits: &Limits) -> Result<SocketIoSettings, BadSettings> {
        Ok(SocketIoSettings {
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
            namespaces: self.namespace_list()?,
            names: Arc::new(self.names()?),
            refusal: match self.refusal {
                OnRefusal::ConnectError => Refusal::ConnectError,
                OnRefusal::Disconnect => Refusal::Disconnect,
            },
            handshakes: PerSecond::new(limits.handshakes_per_second),
            handshakes_per_address: PerSecond::new(limits.handshakes_per_address),
            messages: PerSecond::new(limits.messages_per_second),
        })
    }
}
