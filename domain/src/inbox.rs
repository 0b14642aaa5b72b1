//! One user's inbox: its rules for changes, counts and history.

use std::collections::BTreeSet;

use crate::event::{Change, DomainEvent};
use crate::inbox_state::{Epoch, InboxState, Revision, UnreadCount};
use crate::notification::{Draft, Notification, NotificationId};
use crate::replay::{MissedChange, MissedCount, ReplayRange};
use crate::retention::ExpiryCutoff;
use crate::time::Timestamp;
use crate::user::UserId;

/// The result of adding a draft to an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The notification was created; contains the event to publish.
    Created(DomainEvent),
    /// A notification with this id or dedupe key exists; nothing changed. Contains that notification.
    Duplicate(Box<Notification>),
    /// A notification with this id or dedupe key existed and is deleted; nothing changed. Contains its id;
    /// its contents are gone.
    Deleted(NotificationId),
}

impl Receipt {
    /// The notification in the inbox; `None` if it is deleted.
    pub fn notification(&self) -> Option<&Notification> {
        match self {
            Self::Created(DomainEvent { change: Change::Created(notification), .. })
            | Self::Duplicate(notification) => Some(notification),
            Self::Created(_) | Self::Deleted(_) => None,
        }
    }
}

/// The result of marking notifications as read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marked {
    /// The event to publish; `None` if none of the notifications was unread.
    pub event: Option<DomainEvent>,
    /// Ids that the inbox does not know, each once, in the order of the request. Notifications that were read
    /// before are known, and deleted ones are known as long as their tombstones exist.
    pub unknown: Vec<NotificationId>,
}

/// A complete inbox in memory: the reference implementation for stores. A store applies the same rules
/// to its rows.
///
/// Every method that changes something returns the event to publish. Without a change it returns
/// `None` and uses no revision.
#[derive(Debug, Clone)]
pub struct Inbox {
    user: UserId,
    state: InboxState,
    /// Changes up to this revision can no longer be replayed: their tombstones may have been purged, or they
    /// belong to an erased inbox.
    history_floor: Revision,
    /// Oldest first, including tombstones: the entries of deleted notifications.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    notification: Notification,
    dedupe_key: Option<NotificationId>,
    deleted_at: Option<Timestamp>,
}

impl Entry {
    fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    fn is_unread(&self) -> bool {
        !self.is_deleted() && !self.notification.is_read()
    }
}

impl Inbox {
    /// An empty inbox without history.
    pub fn new(user: UserId) -> Self {
        Self::starting_at(user, Revision::ZERO)
    }

    /// An empty inbox whose first change follows `revision`, the highest revision of all inboxes that the
    /// store has erased ([`erase`](Self::erase)). A device of an erased inbox may know any revision up to
    /// that one, and must not count as up to date.
    pub fn starting_at(user: UserId, revision: Revision) -> Self {
        let state = InboxState { revision, unread: UnreadCount::ZERO };
        Self { user, state, history_floor: revision, entries: Vec::new() }
    }

    /// The current revision and unread count.
    pub fn state(&self) -> InboxState {
        self.state
    }

    /// Creates a notification, unless one with this id or dedupe key was created before.
    pub fn create(&mut self, draft: Draft) -> Receipt {
        if let Some(Entry { notification, deleted_at, .. }) = self.duplicate_of(&draft) {
            return match deleted_at {
                None => Receipt::Duplicate(Box::new(notification.clone())),
                Some(_) => Receipt::Deleted(notification.id.clone()),
            };
        }
        let dedupe_key = draft.dedupe_key.clone();
        let notification = draft.into_notification(self.state.revision.next());
        let entry = Entry { notification: notification.clone(), dedupe_key, deleted_at: None };
        self.entries.push(entry);
        Receipt::Created(self.record(Change::Created(Box::new(notification))))
    }

    /// Marks the unread notifications among `ids` as read, and returns the unknown ids.
    pub fn mark_read(&mut self, ids: &[NotificationId], read_at: Timestamp) -> Marked {
        let revision = self.state.revision.next();
        let mut marked = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.is_unread()) {
            if ids.contains(&entry.notification.id) {
                entry.notification.read_at = Some(read_at);
                entry.notification.revision = revision;
                marked.push(entry.notification.id.clone());
            }
        }
        let event =
            (!marked.is_empty()).then(|| self.record(Change::MarkedRead { ids: marked, read_at }));
        Marked { event, unknown: self.unknown(ids) }
    }

    /// Marks all unread notifications as read.
    pub fn mark_all_read(&mut self, read_at: Timestamp) -> Option<DomainEvent> {
        let revision = self.state.revision.next();
        let mut any = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.is_unread()) {
            entry.notification.read_at = Some(read_at);
            entry.notification.revision = revision;
            any = true;
        }
        any.then(|| self.record(Change::AllRead { read_at }))
    }

    /// Deletes the notifications among `ids`. They are kept as tombstones, so that a device that was
    /// offline learns of the deletion and a retrying sender does not create them again. A store removes
    /// their contents.
    pub fn delete(&mut self, ids: &[NotificationId], at: Timestamp) -> Option<DomainEvent> {
        let revision = self.state.revision.next();
        let mut deleted = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_deleted()) {
            if ids.contains(&entry.notification.id) {
                entry.deleted_at = Some(at);
                entry.notification.revision = revision;
                deleted.push(entry.notification.id.clone());
            }
        }
        (!deleted.is_empty()).then(|| self.record(Change::Deleted { ids: deleted }))
    }

    /// Deletes at most `limit` notifications to which the cutoff applies, the oldest first.
    pub fn expire(&mut self, cutoff: &ExpiryCutoff, limit: usize) -> Option<DomainEvent> {
        let present = self.entries.iter().filter(|entry| !entry.is_deleted());
        let notifications = present.map(|entry| &entry.notification);
        let expired = notifications.filter(|notification| cutoff.applies_to(notification));
        let ids: Vec<_> = expired.take(limit).map(|notification| notification.id.clone()).collect();
        self.delete(&ids, cutoff.now)
    }

    /// Removes at most `limit` tombstones of notifications that were deleted before `deleted_before`, and
    /// returns their number. The history up to the latest removed tombstone is then incomplete, and a
    /// sender that retries a removed notification creates it again.
    pub fn purge_deleted(&mut self, deleted_before: Timestamp, limit: usize) -> usize {
        let mut floor = self.history_floor;
        let mut purged = 0;
        self.entries.retain(|entry| {
            let is_old = entry.deleted_at.is_some_and(|at| at < deleted_before);
            let remove = is_old && purged < limit;
            if remove {
                purged += 1;
                floor = floor.max(entry.notification.revision);
            }
            !remove
        });
        self.history_floor = floor;
        purged
    }

    /// Erases the inbox with its history. The event's revision is later than all revisions of this inbox,
    /// and not earlier than `highest_erased`, the highest revision of all inboxes erased before. A later
    /// inbox of this user [starts](Self::starting_at) at the event's revision.
    pub fn erase(self, epoch: Epoch, highest_erased: Revision) -> DomainEvent {
        DomainEvent {
            revision: self.state.revision.next().max(highest_erased),
            user: self.user,
            unread: UnreadCount::ZERO,
            change: Change::Erased { epoch },
        }
    }

    /// The number of notifications, including tombstones.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// All notifications that are not deleted, newest first.
    pub fn notifications(&self) -> impl Iterator<Item = &Notification> {
        self.entries
            .iter()
            .rev()
            .filter(|entry| !entry.is_deleted())
            .map(|entry| &entry.notification)
    }

    /// The number of notifications that changed after `since`, including tombstones. `None` if the history
    /// after `since` is incomplete, or `since` is later than the latest change.
    pub fn count_since(&self, since: Revision) -> Option<MissedCount> {
        if !self.has_history_since(since) {
            return None;
        }
        let changed = self.entries.iter().filter(|entry| entry.notification.revision > since);
        Some(changed.fold(MissedCount::default(), |count, entry| {
            let is_new = entry.notification.created_revision > since && !entry.is_deleted();
            MissedCount { changed: count.changed + 1, created: count.created + usize::from(is_new) }
        }))
    }

    /// The notifications created in the range and not deleted, oldest first.
    pub fn created_in(&self, range: ReplayRange) -> impl Iterator<Item = &Notification> {
        let present = self.entries.iter().filter(|entry| !entry.is_deleted());
        let notifications = present.map(|entry| &entry.notification);
        notifications.filter(move |notification| range.contains(notification.created_revision))
    }

    /// The changes of notifications that were read or deleted and whose latest change is in the range,
    /// ordered by revision. Notifications that were created and deleted after `range.since` are left out,
    /// because the device never saw them. `None` if the history of the range is incomplete.
    pub fn changed_in(&self, range: ReplayRange) -> Option<Vec<MissedChange>> {
        if !self.has_history_since(range.after) {
            return None;
        }
        let in_range =
            self.entries.iter().filter(|entry| range.contains(entry.notification.revision));
        let mut changes: Vec<_> = in_range
            .filter(|entry| entry.is_deleted() || entry.notification.is_read())
            .filter(|entry| {
                !entry.is_deleted() || entry.notification.created_revision <= range.since
            })
            .map(|entry| MissedChange {
                id: entry.notification.id.clone(),
                revision: entry.notification.revision,
                read_at: entry.notification.read_at.filter(|_| !entry.is_deleted()),
            })
            .collect();
        changes.sort_by_key(|change| change.revision);
        Some(changes)
    }

    fn has_history_since(&self, since: Revision) -> bool {
        (self.history_floor..=self.state.revision).contains(&since)
    }

    fn unknown(&self, ids: &[NotificationId]) -> Vec<NotificationId> {
        let known = self.entries.iter().map(|entry| &entry.notification.id);
        let mut known_or_listed: BTreeSet<_> = known.collect();
        ids.iter().filter(|id| known_or_listed.insert(id)).cloned().collect()
    }

    fn duplicate_of(&self, draft: &Draft) -> Option<&Entry> {
        self.entries.iter().find(|entry| {
            entry.notification.id == draft.id
                || (draft.dedupe_key.is_some() && entry.dedupe_key == draft.dedupe_key)
        })
    }

    /// Advances the state past a change that was just applied, and returns its event.
    fn record(&mut self, change: Change) -> DomainEvent {
        let unread = self.entries.iter().filter(|entry| entry.is_unread()).count();
        self.state = InboxState {
            revision: self.state.revision.next(),
            unread: UnreadCount::new(unread as u64),
        };
        DomainEvent {
            user: self.user.clone(),
            revision: self.state.revision,
            unread: self.state.unread,
            change,
        }
    }
}
