//! The messages that devices receive, independent of the transport.

use std::sync::Arc;

use belfry_domain::{
    Change, DomainEvent, Epoch, Notification, NotificationId, Revision, Timestamp, UnreadCount,
};

/// All pushes of one change, in the order in which a device receives them. A device receives all of
/// them or none.
#[derive(Debug, Clone, PartialEq)]
pub struct PushBatch {
    /// The revision of the change; `None` for a forwarded event, which is not stored.
    pub revision: Option<Revision>,
    /// Whether the change replaces the whole inbox, so that no earlier change matters any more.
    pub starts_over: bool,
    /// In sending order.
    pub pushes: Vec<Push>,
}

/// One message to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Push {
    /// A notification was created.
    New(Arc<Notification>),
    /// The unread count changed.
    UnreadCount {
        /// The new count.
        count: UnreadCount,
        /// The revision that the count belongs to.
        revision: Revision,
    },
    /// Notifications were read on one of the user's devices.
    MarkedRead {
        /// The notifications.
        selection: Selection,
        /// When the user read them.
        read_at: Timestamp,
        /// The revision of the change.
        revision: Revision,
    },
    /// Notifications were deleted.
    Deleted {
        /// The notifications.
        ids: Vec<NotificationId>,
        /// The revision of the change.
        revision: Revision,
    },
    /// The state of the inbox: the first push of a session. Also sent when a device must start over.
    Sync(SyncState),
    /// The session's token expires soon.
    Expiring {
        /// When it expires.
        expires_at: Timestamp,
    },
    /// An error that is not the reply to a message of the device.
    Exception {
        /// The stable code.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// A payload of another service, passed on unchanged.
    Forwarded(ForwardedPush),
}

/// The notifications that a change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All notifications in the inbox.
    All,
    /// The notifications with these ids.
    Ids(Vec<NotificationId>),
}

/// The state of an inbox, for a device that has just connected or must start over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncState {
    /// The store that the revisions belong to.
    pub epoch: Epoch,
    /// The revision of the latest change.
    pub revision: Revision,
    /// The number of unread notifications; `None` if another service keeps the inbox.
    pub unread: Option<UnreadCount>,
    /// Whether all missed changes follow. If not, the device must reload its list.
    pub recovered: bool,
    /// The number of notifications that follow and are new to the device, as of this state.
    /// Notifications that are deleted before they are sent do not follow.
    pub missed: usize,
}

impl SyncState {
    /// The push of this state's unread count, which follows the replay. Its revision is that of the state,
    /// because the last replayed change may be older: changes of notifications that were created and deleted
    /// in the meantime are not replayed. `None` if another service keeps the inbox.
    pub(crate) fn unread_count_push(&self) -> Option<Push> {
        self.unread.map(|count| Push::UnreadCount { count, revision: self.revision })
    }

    /// The same state for a device that must reload its list.
    #[must_use]
    pub fn without_replay(self) -> Self {
        Self { recovered: false, missed: 0, ..self }
    }
}

/// A JSON text that Belfry passes on unchanged. The caller has checked its syntax.
#[derive(Debug, Clone, PartialEq)]
pub enum ForwardedPush {
    /// A notification that the other service stores.
    New(Arc<str>),
    /// That service's unread count.
    UnreadCount(Arc<str>),
    /// That service's message about read notifications.
    MarkedRead(Arc<str>),
    /// That service's message about deleted notifications.
    Deleted(Arc<str>),
    /// Any other event of that service.
    Custom {
        /// The name under which devices receive it.
        event: Arc<str>,
        /// The payload.
        data: Arc<str>,
    },
}

impl PushBatch {
    /// The pushes for a stored change: the change itself, then the unread count after it.
    pub fn of(event: DomainEvent) -> Self {
        let DomainEvent { revision, unread: count, change, .. } = event;
        let starts_over = matches!(change, Change::Erased { .. });
        let pushes = vec![Push::of(revision, change), Push::UnreadCount { count, revision }];
        Self { revision: Some(revision), starts_over, pushes }
    }

    /// The push for one change of a replay.
    pub(crate) fn replayed(revision: Revision, change: Change) -> Self {
        let pushes = vec![Push::of(revision, change)];
        Self { revision: Some(revision), starts_over: false, pushes }
    }

    /// Pushes for an event that Belfry does not store.
    pub fn forwarded(pushes: Vec<Push>) -> Self {
        Self { revision: None, starts_over: false, pushes }
    }

    /// The size of the texts of its new notifications, in bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        let size = |push: &Push| if let Push::New(new) = push { new.text_bytes() } else { 0 };
        self.pushes.iter().map(size).sum()
    }
}

impl Push {
    /// The push for a change.
    pub fn of(revision: Revision, change: Change) -> Self {
        match change {
            Change::Created(notification) => Self::New(Arc::from(notification)),
            Change::MarkedRead { ids, read_at } => {
                Self::MarkedRead { selection: Selection::Ids(ids), read_at, revision }
            }
            Change::AllRead { read_at } => {
                Self::MarkedRead { selection: Selection::All, read_at, revision }
            }
            Change::Deleted { ids } => Self::Deleted { ids, revision },
            // The same push as for a device that cannot be brought up to date: the device reloads its list.
            Change::Erased { epoch } => Self::Sync(SyncState {
                epoch,
                revision,
                unread: Some(UnreadCount::ZERO),
                recovered: false,
                missed: 0,
            }),
        }
    }
}
