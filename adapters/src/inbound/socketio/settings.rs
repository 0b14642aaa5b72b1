use std::sync::Arc;
use std::time::Duration;

use super::engine::EngineSettings;
use crate::limits::PerSecond;
use crate::outbound::socketio::{Namespaces, Refusal};
use crate::wire::socket::SocketTable;

/// The settings of a Socket.IO server.
#[derive(Debug, Clone)]
pub struct SocketIoSettings {
    /// The settings of Engine.IO sessions.
    pub engine: EngineSettings,
    /// How long a transport may stay open while its client is connected to no namespace.
    pub connect_timeout: Duration,
    /// Whether the query of a request may contain a token (`?token=`).
    pub token_in_query: bool,
    /// The namespaces that devices can connect to.
    pub namespaces: Namespaces,
    /// The packets that a rejected device receives.
    pub refusal: Refusal,
    /// The names and shapes of events and messages.
    pub names: Arc<SocketTable>,
    /// The rate of handshakes that this node accepts; `None` for no limit.
    pub handshakes: Option<PerSecond>,
    /// The rate of handshakes that this node accepts from one address; `None` for no limit.
    pub handshakes_per_address: Option<PerSecond>,
    /// The rate of messages that each device may send; `None` for no limit.
    pub messages: Option<PerSecond>,
}

impl Default for SocketIoSettings {
    fn default() -> Self {
        Self {
            engine: EngineSettings::default(),
            connect_timeout: Duration::from_secs(20),
            token_in_query: false,
            namespaces: Namespaces::default(),
            refusal: Refusal::default(),
            names: Arc::default(),
            handshakes: None,
            handshakes_per_address: None,
            messages: None,
        }
    }
}
