use belfry_domain::{
    InvalidData, InvalidEpoch, InvalidId, InvalidLink, InvalidMessage, InvalidNotificationKind,
    InvalidPriority, InvalidTitle, InvalidUserId,
};

/// The text is not an event.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the error of the field that it names")]
pub enum InvalidEvent {
    #[error("not the JSON of an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    UserId(#[from] InvalidUserId),
    #[error(transparent)]
    Epoch(#[from] InvalidEpoch),
    #[error(transparent)]
    Kind(#[from] InvalidNotificationKind),
    #[error(transparent)]
    Title(#[from] InvalidTitle),
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    #[error(transparent)]
    Data(#[from] InvalidData),
    #[error(transparent)]
    Link(#[from] InvalidLink),
    #[error(transparent)]
    Priority(#[from] InvalidPriority),
}
