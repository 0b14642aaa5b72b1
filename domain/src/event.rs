use crate::inbox_state::{InboxState, Revision, UnreadCount};
use crate::notification::{Notification, NotificationId};
use crate::time::Timestamp;
use crate::user::UserId;

/// A stored change of one inbox, to be published.
///
/// Revisions order the events of one inbox. They are consecutive, so a device can drop stale events
/// and detect a gap. The count is the one right after this change.
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
        }
    }
}
