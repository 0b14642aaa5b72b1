use tracing::debug;

use super::handler::Violation;
use crate::limits::Limit;
use crate::transport::ReadError;

/// Why a session ends.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// The connection is gone, or must be closed without a last packet.
    Gone,
    /// The server closes the transport after queued packets have been sent.
    ByServer,
    /// The client closes the session.
    ByClient,
    /// The client closes the WebSocket, with a status code or without.
    ClosingHandshake(Option<u16>),
    /// The client violated the WebSocket protocol. The close frame has this status code.
    WebSocketError(u16),
    /// The client violated Engine.IO or the protocol on top of it.
    Violation,
    PingTimeout,
}

impl From<Violation> for SessionEnd {
    fn from(Violation: Violation) -> Self {
        Self::Violation
    }
}

impl From<ReadError> for SessionEnd {
    fn from(error: ReadError) -> Self {
        let Some(code) = error.close_code() else { return Self::Gone };
        debug!(%error, code, "WebSocket closed");
        if matches!(error, ReadError::TooLarge) {
            Limit::Payload.record_exceeded();
        }
        Self::WebSocketError(code)
    }
}
