use crate::{InboxState, Notification, NotificationId, Revision, Timestamp, UnreadCount, UserId};

/// Something that happened to one inbox, told once it is stored.
///
/// The revision orders the events of one inbox: each takes the next one, so a device can drop what
/// is stale and see a gap. The count is the one right after this change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvent {
    /// Whose inbox changed.
    pub user: UserId,
    /// The change's place in the inbox's history.
    pub revision: Revision,
    /// How many are unread after it.
    pub unread: UnreadCount,
    /// What changed.
    pub change: Change,
}

/// What can happen to an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It took a notification.
    Created(Box<Notification>),
    /// The user read these; never empty.
    MarkedRead {
        /// Which ones: only those that were unread before.
        ids: Vec<NotificationId>,
        /// When.
        read_at: Timestamp,
    },
    /// The user read all there were.
    AllRead {
        /// When.
        read_at: Timestamp,
    },
    /// These are gone; never empty.
    Deleted {
        /// Which ones.
        ids: Vec<NotificationId>,
    },
}

impl DomainEvent {
    /// Where the inbox stands after the change.
    pub const fn state(&self) -> InboxState {
        InboxState { revision: self.revision, unread: self.unread }
    }

    /// The event's name, by which brokers route it.
    pub const fn name(&self) -> &'static str {
        match self.change {
            Change::Created(_) => "notification.created",
            Change::MarkedRead { .. } => "notification.marked_read",
            Change::AllRead { .. } => "notification.all_read",
            Change::Deleted { .. } => "notification.deleted",
        }
    }
}
