use belfry_application::access::AuthError;
use belfry_application::ports::{CloseReason, PortError};
use belfry_application::session::SyncError;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tracing::error;

use crate::outbound::socketio::{Arguments, NamespaceSocket};
use crate::transport::EnqueueError;
use crate::wire::socket::AckShape;

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
    #[error("another service keeps the inboxes; Belfry only forwards its notifications")]
    InboxNotKept,
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
    /// The code and the text that a device receives for each error. Clients depend on the codes.
    fn code_and_message(&self) -> (&'static str, String) {
        match self {
            Self::Rejected(refusal) => (refusal.code(), refusal.to_string()),
            Self::Invalid(_) => ("payload_invalid", self.to_string()),
            Self::UnknownEvent => ("event_unknown", self.to_string()),
            Self::NotFound => ("not_found", self.to_string()),
            Self::InboxNotKept => ("inbox_not_kept", self.to_string()),
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

/// The data of a reply, as JSON text. A page can be large, and as a [`serde_json::Value`] it would need several times
/// as much memory and time.
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
#[derive(Debug)]
pub(super) struct Reply {
    outcome: Result<ReplyData, Failure>,
    shape: AckShape,
}

#[derive(Debug)]
struct Failure {
    code: &'static str,
    message: String,
}

/// The JSON forms of replies. The order of the fields is a part of the wire format.
#[derive(Serialize)]
#[serde(untagged)]
enum ReplyForm<'a> {
    /// A success in [`AckShape::Belfry`].
    Done { data: &'a ReplyData, status: &'static str },
    /// A failure in [`AckShape::Belfry`], and the payload of `exception`.
    Failed { status: &'static str, code: &'static str, message: &'a str },
    /// A success in [`AckShape::Success`].
    Success { success: bool },
    /// A failure in [`AckShape::Success`].
    NoSuccess { success: bool, code: &'static str, message: &'a str },
    /// A success in any other shape.
    Bare(&'a ReplyData),
}

impl Reply {
    /// The reply to the message with this event name.
    pub(super) fn to(
        event: &str,
        outcome: Result<ReplyData, MessageError>,
        shape: AckShape,
    ) -> Self {
        let outcome = outcome.map_err(|error| {
            // Outages are logged where they are detected.
            if let MessageError::Port(cause) | MessageError::NotSynced(SyncError::Port(cause)) =
                &error
                && !cause.is_transient()
            {
                error!(error = cause as &dyn std::error::Error, event, "cannot process message");
            }
            let (code, message) = error.code_and_message();
            Failure { code, message }
        });
        Self { outcome, shape }
    }

    /// Sends the reply to the device. `ack` is the id of the requested acknowledgement.
    pub(super) fn send(
        &self,
        socket: &NamespaceSocket,
        ack: Option<u64>,
    ) -> Result<(), EnqueueError> {
        let arguments = |json| Arguments { json, attachments: Vec::new() };
        match (ack, self.acknowledgement()) {
            (Some(id), Some(json)) => socket.acknowledge(id, &arguments(format!("[{json}]"))),
            _ => match self.exception() {
                Some(json) => socket.emit(&arguments(format!(r#"["exception",{json}]"#))),
                None => Ok(()),
            },
        }
    }

    /// The JSON of the acknowledgement; `None` for a failure that is not acknowledged in this shape.
    fn acknowledgement(&self) -> Option<String> {
        let form = match (&self.outcome, self.shape) {
            (Ok(data), AckShape::Belfry) => ReplyForm::Done { data, status: "ok" },
            (Ok(_), AckShape::Success) => ReplyForm::Success { success: true },
            (Ok(data), _) => ReplyForm::Bare(data),
            (Err(_), shape) if !shape.acknowledges_failures() => return None,
            (Err(Failure { code, message }), AckShape::Success) => {
                ReplyForm::NoSuccess { success: false, code, message }
            }
            (Err(Failure { code, message }), _) => {
                ReplyForm::Failed { status: "error", code, message }
            }
        };
        Some(form.to_json())
    }

    /// The payload of `exception`; `None` if the message succeeded.
    fn exception(&self) -> Option<String> {
        let Failure { code, message } = self.outcome.as_ref().err()?;
        Some(ReplyForm::Failed { status: "error", code, message }.to_json())
    }
}

impl ReplyForm<'_> {
    fn to_json(&self) -> String {
        // Cannot fail, for the same reason as in `ReplyData::of`.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgement_has_the_shape_of_its_rule() {
        let reply = |shape, outcome| Reply::to("e", outcome, shape).acknowledgement();
        let data = || Ok(ReplyData::of(&serde_json::json!({ "count": 3 })));
        let failure = || Err(MessageError::NotFound);
        let text = |json: &str| Some(json.to_owned());
        let belfry = r#"{"data":{"count":3},"status":"ok"}"#;
        assert_eq!(reply(AckShape::Belfry, data()), text(belfry));
        assert_eq!(reply(AckShape::Success, data()), text(r#"{"success":true}"#));
        assert_eq!(reply(AckShape::Bare, data()), text(r#"{"count":3}"#));
        let why = r#""code":"not_found","message":"there is no such notification"}"#;
        let failed = format!(r#"{{"status":"error",{why}"#);
        assert_eq!(reply(AckShape::Belfry, failure()), Some(failed.clone()));
        let no_success = format!(r#"{{"success":false,{why}"#);
        assert_eq!(reply(AckShape::Success, failure()), Some(no_success));
        let bare_failure = reply(AckShape::Bare, failure());
        assert_eq!(bare_failure, None, "a bare acknowledgement cannot report a failure");
        let exception = Reply::to("e", failure(), AckShape::Bare).exception();
        assert_eq!(exception, Some(failed));
    }
}
