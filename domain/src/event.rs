use std::borrow::Cow;

use crate::inbox_state::{Epoch, InboxState, Revision, UnreadCount};
use crate::notification::{Notification, NotificationId};
use crate::time::Timestamp;
use crate::user::UserId;

/// A stored change of one inbox, to be published.
///
/// Revisions order the events of one inbox. They are consecutive, so a device can drop stale events
/// and detect a gap. Only the revision of [`Change::Erased`] may skip numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvent {
    /// The owner of the inbox.
    pub user: UserId,
    /// The number of the change within the inbox.
    pub revision: Revision,
    /// The unread count after the change.
    pub unread: UnreadCount,
    /// The change itself.
    pub change: Change,
}

/// The kinds of change to an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A notification was created.
    Created(Box<Notification>),
    /// The user read these notifications.
    MarkedRead {
        /// Only notifications that were unread before; never empty.
        ids: Vec<NotificationId>,
        /// The instant of reading.
        read_at: Timestamp,
    },
    /// The user read everything in the inbox.
    AllRead {
        /// The instant of reading.
        read_at: Timestamp,
    },
    /// These notifications were deleted.
    Deleted {
        /// Never empty.
        ids: Vec<NotificationId>,
    },
    /// The whole inbox was erased, with its history. Devices start over from an empty list; earlier
    /// changes that they have not received are gone.
    Erased {
        /// The store that the revisions belong to.
        epoch: Epoch,
    },
}

impl DomainEvent {
    /// The state of the inbox after the change.
    pub const fn state(&self) -> InboxState {
        InboxState { revision: self.revision, unread: self.unread }
    }

    /// The event's name. Brokers use it as the routing key.
    pub const fn name(&self) -> &'static str {
        match self.change {
            Change::Created(_) => "notification.created",
            Change::MarkedRead { .. } => "notification.marked_read",
            Change::AllRead { .. } => "notification.all_read",
            Change::Deleted { .. } => "notification.deleted",
            Change::Erased { .. } => EventName::ALL_ERASED,
        }
    }
}

/// The name of an event, such as `notification.created`: 1 to [`EventName::MAX_BYTES`] bytes, ASCII
/// letters, digits, dots, hyphens and underscores. It may be a name that this version does not know,
/// because a node of a newer version stored the event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventName(Cow<'static, str>);

/// The text is not an [`EventName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event name is 1 to {} ASCII letters, digits, dots, hyphens and underscores",
    EventName::MAX_BYTES
)]
pub struct InvalidEventName;

impl EventName {
    /// The maximum length. It fits every broker's routing key.
    pub const MAX_BYTES: usize = 100;

    /// The name of the event of [`Change::Erased`].
    pub const ALL_ERASED: &'static str = "notification.all_erased";

    /// The name of this event.
    pub const fn of(event: &DomainEvent) -> Self {
        Self(Cow::Borrowed(event.name()))
    }

    /// Checks the text.
    pub fn parse(raw: &str) -> Result<Self, InvalidEventName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if (1..=Self::MAX_BYTES).contains(&raw.len()) && raw.bytes().all(is_allowed) {
            Ok(Self(Cow::Owned(raw.to_owned())))
        } else {
            Err(InvalidEventName)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::tests::a_draft;

    #[test]
    fn each_change_has_its_own_event_name() {
        let id = NotificationId::parse("n1").unwrap();
        let at = Timestamp::from_unix_millis(0);
        let created = a_draft().into_notification(Revision::new(1));
        for (change, name) in [
            (Change::Created(Box::new(created)), "notification.created"),
            (Change::MarkedRead { ids: vec![id.clone()], read_at: at }, "notification.marked_read"),
            (Change::AllRead { read_at: at }, "notification.all_read"),
            (Change::Deleted { ids: vec![id] }, "notification.deleted"),
            (Change::Erased { epoch: Epoch::parse("e1").unwrap() }, "notification.all_erased"),
        ] {
            let event = DomainEvent {
                user: UserId::parse("ada").unwrap(),
                revision: Revision::new(1),
                unread: UnreadCount::new(0),
                change,
            };
            assert_eq!(event.name(), name);
            assert_eq!(EventName::parse(name), Ok(EventName::of(&event)));
        }
    }

    #[test]
    fn longest_name_is_accepted_and_invalid_ones_are_rejected() {
        let longest = "n".repeat(EventName::MAX_BYTES);
        assert_eq!(EventName::parse(&longest).unwrap().as_str(), longest);
        for raw in ["", "a b", "naïve", "a\nb", "#", &format!("{longest}n")] {
            assert_eq!(EventName::parse(raw), Err(InvalidEventName), "{raw:?}");
        }
    }
}
