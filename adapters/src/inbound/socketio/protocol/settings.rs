use std::time::Duration;

use crate::outbound::socketio::{Namespaces, Refusal};

/// The settings of the Socket.IO protocol.
#[derive(Debug, Clone, Copy)]
pub struct ProtocolSettings {
    /// The namespaces that clients can connect to.
    pub namespaces: Namespaces,
    /// The packets that a client receives when its CONNECT is rejected.
    pub refusal: Refusal,
    /// How long a transport may stay open while its client is connected to no namespace.
    pub connect_timeout: Duration,
}

impl Default for ProtocolSettings {
    fn default() -> Self {
        Self {
            namespaces: Namespaces::default(),
            refusal: Refusal::default(),
            connect_timeout: Duration::from_secs(20),
        }
    }
}
