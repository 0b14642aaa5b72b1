//! What devices are told, whatever the transport that tells it.

use std::sync::Arc;

use belfry_domain::{
    Change, DomainEvent, Epoch, Notification, NotificationId, Revision, Timestamp, UnreadCount,
};

/// Everything to tell of one change, in the order in which a device should hear it. A device gets
/// all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct PushBatch {
    /// The change's place in the inbox; `None` for what is passed on without being stored.
    pub revision: Option<Revision>,
    /// What to say.
    pub pushes: Vec<Push>,
}

/// One thing said to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Push {
    /// The inbox took a notification.
    New(Arc<Notification>),
    /// So many are unread now.
    UnreadCount {
        /// How many.
        count: UnreadCount,
        /// As of which change.
        revision: Revision,
    },
    /// Some or all were read on one of the user's devices.
    MarkedRead {
        /// Which ones.
        which: Selection,
        /// When.
        read_at: Timestamp,
        /// By which change.
        revision: Revision,
    },
    /// These are gone.
    Deleted {
        /// Which ones.
        ids: Vec<NotificationId>,
        /// By which change.
        revision: Revision,
    },
    /// Where the inbox stands: the first thing a device hears.
    Sync(SyncState),
    /// The session's token ends soon.
    Expiring {
        /// When it ends.
        expires_at: Timestamp,
    },
    /// Something went wrong that no answer could say.
    Exception {
        /// A stable code.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// What another service said, passed on unread.
    Forwarded(ForwardedPush),
}

/// Which notifications are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All there were.
    All,
    /// These.
    Ids(Vec<NotificationId>),
}

/// Where an inbox stands, for a device that has just connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncState {
    /// Which store the revisions belong to.
    pub epoch: Epoch,
    /// The latest change.
    pub revision: Revision,
    /// How many are unread.
    pub unread: UnreadCount,
    /// Whether all that the device missed follows. If not, it must load its list anew.
    pub recovered: bool,
    /// How many notifications follow that the device never saw, as of this state. Those that are deleted
    /// before their turn comes do not follow.
    pub missed: usize,
}

impl SyncState {
    /// The same for a device that cannot be told what it missed.
    #[must_use]
    pub fn without_replay(self) -> Self {
        Self { recovered: false, missed: 0, ..self }
    }
}

/// A payload that Belfry carries and does not read: JSON text that the edge has checked.
#[derive(Debug, Clone, PartialEq)]
pub enum ForwardedPush {
    /// A notification that another service keeps.
    New(Arc<str>),
    /// That service's unread count.
    UnreadCount(Arc<str>),
    /// That service's word on what was read.
    MarkedRead(Arc<str>),
}

impl PushBatch {
    /// What there is to tell of a stored change: the change itself, then the count after it.
    pub fn of(event: DomainEvent) -> Self {
        let DomainEvent { revision, unread: count, change, .. } = event;
        let told = Push::of(revision, change);
        Self { revision: Some(revision), pushes: vec![told, Push::UnreadCount { count, revision }] }
    }

    /// What there is to tell of something that is not stored here.
    pub fn forwarded(pushes: Vec<Push>) -> Self {
        Self { revision: None, pushes }
    }
}

impl Push {
    /// The change as a device hears of it.
    pub fn of(revision: Revision, change: Change) -> Self {
        match change {
            Change::Created(notification) => Self::New(Arc::from(notification)),
            Change::MarkedRead { ids, read_at } => {
                Self::MarkedRead { which: Selection::Ids(ids), read_at, revision }
            }
            Change::AllRead { read_at } => {
                Self::MarkedRead { which: Selection::All, read_at, revision }
            }
            Change::Deleted { ids } => Self::Deleted { ids, revision },
        }
    }
}
