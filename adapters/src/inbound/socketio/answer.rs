use std::convert::Infallible;
use std::sync::Arc;

use belfry_application::ports::{CloseReason, PortError};
use belfry_application::session::NotSynced;
use belfry_application::use_cases::Refusal;
use serde::Serialize;
use serde_json::{Value, json};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::handler::{FromMessageParts, Value as Packet};
use socketioxide::socket::Socket;
use tracing::error;

/// Why a message did not do what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Invalid(String),
    #[error("the session has ended")]
    SessionEnded,
    #[error("there is no event of this name")]
    UnknownEvent,
    #[error("there is no such notification")]
    NotFound,
    #[error("too many messages are under way")]
    TooManyUnderWay,
    #[error("more messages come than may")]
    TooManyMessages,
    #[error(transparent)]
    NotSynced(#[from] NotSynced),
    #[error(transparent)]
    Port(#[from] PortError),
}

impl Failure {
    /// The one table from failures to what a device is told: a stable code, and a sentence.
    fn told(&self) -> (&'static str, String) {
        match self {
            Self::Refused(refusal) => (refusal.code(), refusal.to_string()),
            Self::Invalid(_) => ("payload_invalid", self.to_string()),
            Self::SessionEnded => ("session_ended", self.to_string()),
            Self::UnknownEvent => ("event_unknown", self.to_string()),
            Self::NotFound => ("not_found", self.to_string()),
            Self::TooManyUnderWay | Self::TooManyMessages => {
                (CloseReason::TooManyMessages.as_str(), self.to_string())
            }
            Self::NotSynced(NotSynced::UnderWay) => ("sync_under_way", self.to_string()),
            Self::NotSynced(NotSynced::Unsent | NotSynced::FallsBehind) => {
                ("too_slow", self.to_string())
            }
            Self::Port(error) | Self::NotSynced(NotSynced::Port(error)) if error.is_passing() => {
                ("unavailable", "this is not possible at the moment".to_owned())
            }
            Self::Port(_) | Self::NotSynced(NotSynced::Port(_)) => {
                ("internal", "this went wrong on our side".to_owned())
            }
        }
    }
}

/// The way back to a device that sent a message: the acknowledgement if it asked for one, else the
/// `exception` event for a failure, as NestJS has it, and nothing for a success.
pub(super) struct Answer {
    socket: SocketRef,
    ack: AckSender,
    asked_for: bool,
}

impl FromMessageParts<LocalAdapter> for Answer {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        packet: &mut Packet,
        ack_id: &Option<i64>,
    ) -> Result<Self, Infallible> {
        Ok(Self {
            socket: SocketRef::from_message_parts(socket, packet, ack_id)?,
            ack: AckSender::from_message_parts(socket, packet, ack_id)?,
            asked_for: ack_id.is_some(),
        })
    }
}

/// What came with a message, unread: one that is refused is not worth the reading.
pub(super) struct Payload {
    socket: Arc<Socket<LocalAdapter>>,
    packet: Packet,
}

impl FromMessageParts<LocalAdapter> for Payload {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        packet: &mut Packet,
        _ack_id: &Option<i64>,
    ) -> Result<Self, Infallible> {
        Ok(Self { socket: socket.clone(), packet: packet.clone() })
    }
}

impl Payload {
    /// A message without a payload is as good as one with null.
    pub(super) fn read(mut self) -> Value {
        let Ok(TryData(payload)) =
            TryData::from_message_parts(&self.socket, &mut self.packet, &None);
        payload.unwrap_or(Value::Null)
    }
}

impl Answer {
    pub(super) fn give(self, event: &str, outcome: Result<Value, Failure>) {
        let sent = match outcome {
            Ok(data) => self.ack.send(&json!({ "status": "ok", "data": data })),
            Err(failure) => {
                if let Failure::Port(cause) | Failure::NotSynced(NotSynced::Port(cause)) = &failure
                {
                    error!(error = cause as &dyn std::error::Error, event, "message failed");
                }
                let (code, message) = failure.told();
                let told = Told { status: "error", code, message };
                if self.asked_for {
                    self.ack.send(&told)
                } else {
                    self.socket.emit("exception", &told)
                }
            }
        };
        // A device that is gone or does not read needs no answer.
        drop(sent);
    }
}

#[derive(Serialize)]
struct Told {
    status: &'static str,
    code: &'static str,
    message: String,
}
