use crate::wire::InvalidForm;

/// The largest accepted body in bytes: several times the largest notification for one recipient.
pub(super) const MAX_BODY: usize = 1 << 20;

/// Why a message is invalid. A retry would fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The body is larger than the limit.
    #[error("the body has {0} bytes; the limit is {MAX_BODY}")]
    TooLarge(usize),
    /// The body is not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// The body is not a JSON object. Contains the reason.
    #[error("the body is not a JSON object: {0}")]
    NotJson(String),
    /// There is no pattern.
    #[error("no pattern in the body, the routing key or the type")]
    NoPattern,
    /// Belfry does not know the pattern.
    #[error("unknown pattern {0:?}")]
    UnknownPattern(String),
    /// The message revokes tokens, which the settings do not allow.
    #[error("messages may not revoke tokens: `amqp.ingest.revocations` is off")]
    RevocationNotAllowed,
    /// The message is a request to read an inbox, which the settings do not allow.
    #[error("requests may not read inboxes: `amqp.ingest.reads` is off")]
    ReadNotAllowed,
    /// The message is a request to read an inbox, which Belfry does not keep in forward mode.
    #[error("another service keeps the inboxes: `amqp.ingest.mode` is `forward`")]
    InboxNotKept,
    /// The message is an event that Belfry itself has forwarded.
    #[error("a forwarded event: the ingest queue is bound to `amqp.events.exchange`")]
    AlreadyForwarded,
    /// There is a pattern but no data.
    #[error("data is missing")]
    NoData,
    /// A field is missing or wrong.
    #[error("{0}")]
    Field(#[from] InvalidForm),
}

impl InvalidMessage {
    /// The error of a field that has this problem.
    pub fn field(field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Field(InvalidForm::new(field, problem))
    }

    /// The error of an unknown pattern. It quotes at most 100 characters of the pattern.
    pub(super) fn unknown(pattern: &str) -> Self {
        Self::UnknownPattern(pattern.chars().take(100).collect())
    }
}
