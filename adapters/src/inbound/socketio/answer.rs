use belfry_application::ports::{CloseReason, PortError};
use belfry_application::session::NotSynced;
use belfry_application::use_cases::Refusal;
use serde::Serialize;
use serde_json::Value;
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

/// The answer to a message: its acknowledgement if the device asked for one; else a failure is an
/// [`exception`](Self::EXCEPTION) event, as NestJS has it, and a success is nothing.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Reply {
    /// It was done. The fields are in the order of their names, as they have always been.
    Done { data: Value, status: &'static str },
    /// It was not, for that reason.
    Failed { status: &'static str, code: &'static str, message: String },
}

impl Reply {
    pub(super) const EXCEPTION: &str = "exception";

    /// The answer to that event.
    pub(super) fn to(event: &str, outcome: Result<Value, Failure>) -> Self {
        match outcome {
            Ok(data) => Self::Done { data, status: "ok" },
            Err(failure) => {
                if let Failure::Port(cause) | Failure::NotSynced(NotSynced::Port(cause)) = &failure
                {
                    error!(error = cause as &dyn std::error::Error, event, "message failed");
                }
                let (code, message) = failure.told();
                Self::Failed { status: "error", code, message }
            }
        }
    }
}
