use super::invalid_message::InvalidMessage;

/// Why a message is in a retry queue or in the dead queue, as written in its header `x-belfry-reason`. The header
/// `x-belfry-error` has the text of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// `unreadable`: not UTF-8, not JSON, or too large.
    Unreadable,
    /// `unknown_pattern`: the pattern is unknown or missing.
    UnknownPattern,
    /// `invalid`: a field is missing or wrong.
    Invalid,
    /// `rejected`: the store or the settings reject it.
    Rejected,
    /// `failed`: the message failed although others succeeded, or it came too early. It will be retried.
    Failed,
    /// `gave_up`: the message failed in all its attempts.
    GaveUp,
    /// `unknown_notification`: the message marks a notification as read that the inbox never had, even after all
    /// retries.
    UnknownNotification,
}

impl FailureReason {
    const ALL: [Self; 7] = [
        Self::Unreadable,
        Self::UnknownPattern,
        Self::Invalid,
        Self::Rejected,
        Self::Failed,
        Self::GaveUp,
        Self::UnknownNotification,
    ];

    /// Parses the header's value.
    pub fn parse(raw: &str) -> Result<Self, UnknownReason> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == raw).ok_or(UnknownReason)
    }

    /// The header's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::UnknownPattern => "unknown_pattern",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::GaveUp => "gave_up",
            Self::UnknownNotification => "unknown_notification",
        }
    }
}

/// The text is not a [`FailureReason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the reasons of dead letters are unreadable, unknown_pattern, invalid, rejected, gave_up and \
     unknown_notification"
)]
pub struct UnknownReason;

impl From<&InvalidMessage> for FailureReason {
    fn from(error: &InvalidMessage) -> Self {
        match error {
            InvalidMessage::TooLarge(_) | InvalidMessage::NotUtf8 | InvalidMessage::NotJson(_) => {
                Self::Unreadable
            }
            InvalidMessage::NoPattern | InvalidMessage::UnknownPattern(_) => Self::UnknownPattern,
            InvalidMessage::RevocationNotAllowed
            | InvalidMessage::ReadNotAllowed
            | InvalidMessage::InboxNotKept
            | InvalidMessage::AlreadyForwarded => Self::Rejected,
            InvalidMessage::NoData | InvalidMessage::Field(_) => Self::Invalid,
        }
    }
}
