use std::collections::HashSet;

use belfry_domain::{
    Change, DomainEvent, InboxState, NotificationId, Timestamp, UnreadCount, UserId,
};

use super::stored_value::{InvalidStoredValue, notification_id};

/// A change to notifications that are already in an inbox.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edit<'a> {
    MarkRead(&'a [NotificationId]),
    MarkAllRead,
    Delete(&'a [NotificationId]),
}

impl Edit<'_> {
    /// The event of this edit: at `at` it changed the notifications `ids` of an inbox that was in
    /// `state`; `unread` of them were unread before.
    pub(crate) fn event<'i>(
        self,
        user: &UserId,
        state: InboxState,
        ids: impl IntoIterator<Item = &'i str>,
        unread: u64,
        at: Timestamp,
    ) -> Result<DomainEvent, InvalidStoredValue> {
        let ids = || ids.into_iter().map(notification_id).collect::<Result<Vec<_>, _>>();
        let change = match self {
            Self::MarkRead(_) => Change::MarkedRead { ids: ids()?, read_at: at },
            Self::MarkAllRead => Change::AllRead { read_at: at },
            Self::Delete(_) => Change::Deleted { ids: ids()? },
        };
        let left = state.unread.get().checked_sub(unread);
        let left = left.ok_or_else(|| InvalidStoredValue::new("unread count", &"it is too low"))?;
        Ok(DomainEvent {
            user: user.clone(),
            revision: state.revision.next(),
            unread: UnreadCount::new(left),
            change,
        })
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
