use belfry_application::ports::PortError;
use belfry_domain::{Epoch, InboxState, NotificationId, Revision, UnreadCount, UserId};

/// A stored value that the domain rejects. Another program wrote it, or a version of Belfry with
/// other rules.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored {what} is invalid: {reason}")]
pub(crate) struct InvalidStoredValue {
    what: String,
    reason: String,
}

impl InvalidStoredValue {
    pub(crate) fn new(what: impl Into<String>, reason: &impl ToString) -> Self {
        Self { what: what.into(), reason: reason.to_string() }
    }
}

impl From<InvalidStoredValue> for PortError {
    fn from(error: InvalidStoredValue) -> Self {
        Self::rejected(error.to_string())
    }
}

pub(crate) fn epoch(raw: &str) -> Result<Epoch, InvalidStoredValue> {
    Epoch::parse(raw).map_err(|error| InvalidStoredValue::new("epoch", &error))
}

pub(crate) fn user_id(raw: &str) -> Result<UserId, InvalidStoredValue> {
    UserId::parse(raw).map_err(|error| InvalidStoredValue::new("user id", &error))
}

pub(crate) fn notification_id(raw: &str) -> Result<NotificationId, InvalidStoredValue> {
    NotificationId::parse(raw)
        .map_err(|error| InvalidStoredValue::new(format!("notification id {raw:?}"), &error))
}

/// A number that a constraint keeps from being negative.
pub(crate) fn non_negative(number: i64) -> Result<u64, InvalidStoredValue> {
    u64::try_from(number).map_err(|_| InvalidStoredValue::new("number", &"it is negative"))
}

/// The state of an inbox, from its columns in `inboxes`.
pub(crate) fn inbox_state(revision: i64, unread: i64) -> Result<InboxState, InvalidStoredValue> {
    Ok(InboxState {
        revision: Revision::new(non_negative(revision)?),
        unread: UnreadCount::new(non_negative(unread)?),
    })
}
