use belfry_application::access::AuthError;
use belfry_application::ports::{CloseReason, PortError};
use belfry_application::session::SyncError;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tracing::error;

use crate::outbound::socketio::{Arguments, NamespaceSocket};
use crate::transport::EnqueueError;

/// Why a message failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error(transparent)]
    Rejected(#[from] AuthError),
    #[error("{0}")]
    Invalid(String),
    #[error("there is no event of this name")]
    UnknownEvent,
    #[error("there is no such notification")]
    NotFound,
    #[error("message rate limit exceeded")]
    TooManyMessages,
    #[error("the user's work limit is exceeded")]
    TooMuchWork,
    #[error(transparent)]
    NotSynced(#[from] SyncError),
    #[error(transparent)]
    Port(#[from] PortError),
}

impl MessageError {
    /// The table from errors to the stable code and the text that a device gets.
    fn code_and_message(&self) -> (&'static str, String) {
        match self {
            Self::Rejected(refusal) => (refusal.code(), refusal.to_string()),
            Self::Invalid(_) => ("payload_invalid", self.to_string()),
            Self::UnknownEvent => ("event_unknown", self.to_string()),
            Self::NotFound => ("not_found", self.to_string()),
            Self::TooManyMessages | Self::TooMuchWork => {
                (CloseReason::TooManyMessages.as_str(), self.to_string())
            }
            Self::NotSynced(SyncError::InProgress) => ("sync_under_way", self.to_string()),
            Self::NotSynced(SyncError::SendFailed | SyncError::CannotKeepUp) => {
                ("too_slow", self.to_string())
            }
            Self::Port(error) | Self::NotSynced(SyncError::Port(error)) if error.is_transient() => {
                ("unavailable", "temporarily unavailable".to_owned())
            }
            Self::Port(_) | Self::NotSynced(SyncError::Port(_)) => {
                ("internal", "internal error".to_owned())
            }
        }
    }
}

/// The data of a reply, as JSON text: a page can be large, and a [`serde_json::Value`] of it would need several
/// times as much memory and time.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct ReplyData(Box<RawValue>);

impl ReplyData {
    pub(super) fn of(data: &impl Serialize) -> Self {
        // Serialization fails only for maps with other keys than strings, and there are none.
        Self(to_raw_value(data).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

/// The reply to a message: an acknowledgement if the device requested one. Otherwise an error is sent as an
/// `exception` event, as in NestJS, and a success has no reply.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Reply {
    /// In the order of the wire format: `data` before `status`.
    Done {
        data: ReplyData,
        status: &'static str,
    },
    Failed {
        status: &'static str,
        code: &'static str,
        message: String,
    },
}

impl Reply {
    /// The reply to the event of that name.
    pub(super) fn to(event: &str, outcome: Result<ReplyData, MessageError>) -> Self {
        match outcome {
            Ok(data) => Self::Done { data, status: "ok" },
            Err(error) => {
                // Outages are logged where they are detected.
                if let MessageError::Port(cause) | MessageError::NotSynced(SyncError::Port(cause)) =
                    &error
                    && !cause.is_transient()
                {
                    error!(
                        error = cause as &dyn std::error::Error,
                        event, "cannot process message"
                    );
                }
                let (code, message) = error.code_and_message();
                Self::Failed { status: "error", code, message }
            }
        }
    }

    /// Sends the reply to the device. `ack` is the id of the requested acknowledgement.
    pub(super) fn send(
        &self,
        socket: &NamespaceSocket,
        ack: Option<u64>,
    ) -> Result<(), EnqueueError> {
        // Fails no more than in `ReplyData::of`.
        let json = serde_json::to_string(self).unwrap_or_default();
        let arguments = |json| Arguments { json, attachments: Vec::new() };
        match (ack, self) {
            (Some(id), _) => socket.acknowledge(id, &arguments(format!("[{json}]"))),
            (None, Self::Failed { .. }) => {
                socket.emit(&arguments(format!(r#"["exception",{json}]"#)))
            }
            (None, Self::Done { .. }) => Ok(()),
        }
    }
}
