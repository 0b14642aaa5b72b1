use std::collections::HashSet;

use belfry_application::trace::{self, TraceParent};
use belfry_domain::{
    Change, DomainEvent, InboxState, Marked, NotificationId, Timestamp, UnreadCount, UserId,
};

use super::group_commit::GroupedWrite;
use super::stored_value::{InvalidStoredValue, notification_id};

/// A change to notifications that are already in an inbox.
#[derive(Debug)]
pub(crate) enum Edit {
    MarkRead(Vec<NotificationId>),
    MarkAllRead,
    Delete(Vec<NotificationId>),
}

/// An edit of one user's inbox.
#[derive(Debug)]
pub(crate) struct EditWrite {
    pub(crate) user: UserId,
    pub(crate) edit: Edit,
    pub(crate) at: Timestamp,
    pub(crate) trace: Option<TraceParent>,
}

impl EditWrite {
    /// An edit in the trace of the current task.
    pub(crate) fn new(user: &UserId, edit: Edit, at: Timestamp) -> Self {
        Self { user: user.clone(), edit, at, trace: trace::current() }
    }

    /// The event of this edit: it changed the notifications `ids` of an inbox that was in `state`; `unread` of
    /// them were unread before.
    pub(crate) fn event<'i>(
        &self,
        state: InboxState,
        ids: impl IntoIterator<Item = &'i str>,
        unread: u64,
    ) -> Result<DomainEvent, InvalidStoredValue> {
        let ids = || ids.into_iter().map(notification_id).collect::<Result<Vec<_>, _>>();
        let change = match self.edit {
            Edit::MarkRead(_) => Change::MarkedRead { ids: ids()?, read_at: self.at },
            Edit::MarkAllRead => Change::AllRead { read_at: self.at },
            Edit::Delete(_) => Change::Deleted { ids: ids()? },
        };
        let left = state.unread.get().checked_sub(unread);
        let left = left.ok_or_else(|| InvalidStoredValue::new("unread count", &"it is too low"))?;
        Ok(DomainEvent {
            user: self.user.clone(),
            revision: state.revision.next(),
            unread: UnreadCount::new(left),
            change,
        })
    }
}

impl GroupedWrite for EditWrite {
    type Outcome = Marked;
    /// The user.
    type ConflictKey<'a> = &'a UserId;

    /// Each edit of an inbox starts from the revision of the one before.
    fn conflict_key(&self) -> Option<&UserId> {
        Some(&self.user)
    }

    fn rows(&self) -> usize {
        match &self.edit {
            Edit::MarkRead(ids) | Edit::Delete(ids) => ids.len(),
            Edit::MarkAllRead => 1,
        }
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// The ids that are not among `others`, without duplicates, in their order.
pub(crate) fn without<'a>(
    ids: &[NotificationId],
    others: impl IntoIterator<Item = &'a str>,
) -> Vec<NotificationId> {
    let mut seen: HashSet<_> = others.into_iter().collect();
    ids.iter().filter(|id| seen.insert(id.as_str())).cloned().collect()
}
