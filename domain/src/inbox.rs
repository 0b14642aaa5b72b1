//! One user's inbox: the rules by which it changes, counts and remembers what changed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::text;
use crate::{
    Change, DomainEvent, Draft, Due, MissedChange, MissedCount, Notification, NotificationId,
    ReplayRange, Timestamp, UserId,
};

/// The place of a change in one inbox's history: 1 for the first, then without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

impl Revision {
    /// Before any change.
    pub const ZERO: Self = Self(0);

    /// The revision with that number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one that the next change takes.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many notifications of an inbox are unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnreadCount(u64);

impl UnreadCount {
    /// None.
    pub const ZERO: Self = Self(0);

    /// So many.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Which store revisions belong to. A device that remembers another epoch starts over: its
/// revisions mean nothing here.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

/// A text is not an [`Epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an epoch has 1 to {} visible characters", Epoch::MAX_CHARS)]
pub struct InvalidEpoch;

impl Epoch {
    /// The most characters an epoch has.
    pub const MAX_CHARS: usize = 64;

    /// Takes the text as it stands.
    pub fn parse(raw: &str) -> Result<Self, InvalidEpoch> {
        text::visible(raw, Self::MAX_CHARS).map_err(|_| InvalidEpoch)?;
        Ok(Self(raw.into()))
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

/// Where an inbox stands: its latest change and its count, which belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InboxState {
    /// Its latest change; zero for an inbox in which nothing ever happened.
    pub revision: Revision,
    /// How many are unread.
    pub unread: UnreadCount,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The inbox took it, and this is what there is to tell.
    Taken(DomainEvent),
    /// It was there already, by its id or its dedupe key; nothing changed. Holds what is there,
    /// even if the user has deleted it meanwhile.
    AlreadyThere(Box<Notification>),
}

impl Receipt {
    /// The notification as the inbox has it.
    pub fn notification(&self) -> Option<&Notification> {
        match self {
            Self::Taken(DomainEvent { change: Change::Created(notification), .. })
            | Self::AlreadyThere(notification) => Some(notification),
            Self::Taken(_) => None,
        }
    }
}

/// What became of an order to mark some as read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marked {
    /// What there is to tell; nothing if none of them was unread.
    pub event: Option<DomainEvent>,
    /// Those that the inbox has never had, each once, in the order in which they were named. What was
    /// read or deleted before is known.
    pub unknown: Vec<NotificationId>,
}

/// One user's inbox, whole: the reference for what a store must do. Stores of any size do the same
/// with the rows that a change concerns.
///
/// Every method that changes something answers the event that tells of it, or nothing where there
/// was nothing to change: then no revision is taken either.
#[derive(Debug, Clone)]
pub struct Inbox {
    user: UserId,
    state: InboxState,
    /// What changed up to this revision is not kept completely any more.
    history_floor: Revision,
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
    /// An inbox in which nothing ever happened.
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            state: InboxState::default(),
            history_floor: Revision::ZERO,
            entries: Vec::new(),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> InboxState {
        self.state
    }

    /// Takes a draft, unless one with its id or its dedupe key was taken before.
    pub fn receive(&mut self, draft: Draft) -> Receipt {
        if let Some(there) = self.twin_of(&draft) {
            return Receipt::AlreadyThere(Box::new(there.notification.clone()));
        }
        let dedupe_key = draft.dedupe_key.clone();
        let notification = draft.taken_at(self.state.revision.next());
        let entry = Entry { notification: notification.clone(), dedupe_key, deleted_at: None };
        self.entries.push(entry);
        Receipt::Taken(self.changed(Change::Created(Box::new(notification))))
    }

    /// Marks those of `ids` as read that are here and unread, and says which it does not know.
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
            (!marked.is_empty()).then(|| self.changed(Change::MarkedRead { ids: marked, read_at }));
        Marked { event, unknown: self.unknown(ids) }
    }

    /// Marks all that is unread as read.
    pub fn mark_all_read(&mut self, read_at: Timestamp) -> Option<DomainEvent> {
        let revision = self.state.revision.next();
        let mut any = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.is_unread()) {
            entry.notification.read_at = Some(read_at);
            entry.notification.revision = revision;
            any = true;
        }
        any.then(|| self.changed(Change::AllRead { read_at }))
    }

    /// Deletes those of `ids` that are here. What is deleted stays as a tombstone, so that a device
    /// that was away learns of it and a sender who tries again does not bring it back.
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
        (!deleted.is_empty()).then(|| self.changed(Change::Deleted { ids: deleted }))
    }

    /// Deletes at most `limit` of those that have had their time, the oldest first.
    pub fn expire(&mut self, due: &Due, limit: usize) -> Option<DomainEvent> {
        let there = self.entries.iter().filter(|entry| !entry.is_deleted());
        let over = there.map(|entry| &entry.notification).filter(|one| due.has_come_for(one));
        let ids: Vec<_> = over.take(limit).map(|one| one.id.clone()).collect();
        self.delete(&ids, due.now)
    }

    /// Forgets at most `limit` tombstones of what was deleted before then, and answers how many. From
    /// there on, what happened up to the latest of them cannot be told any more, and a sender who
    /// tries one of them again makes it anew.
    pub fn purge_deleted(&mut self, deleted_before: Timestamp, limit: usize) -> usize {
        let mut floor = self.history_floor;
        let mut forgotten = 0;
        self.entries.retain(|entry| {
            let old = entry.deleted_at.is_some_and(|at| at < deleted_before);
            let goes = old && forgotten < limit;
            if goes {
                forgotten += 1;
                floor = floor.max(entry.notification.revision);
            }
            !goes
        });
        self.history_floor = floor;
        forgotten
    }

    /// What is in it, newest first.
    pub fn notifications(&self) -> impl Iterator<Item = &Notification> {
        self.entries
            .iter()
            .rev()
            .filter(|entry| !entry.is_deleted())
            .map(|entry| &entry.notification)
    }

    /// How much changed after `since`, tombstones included. `None` if the history from there on is not
    /// complete: some of it is forgotten, or `since` is later than the latest change.
    pub fn count_since(&self, since: Revision) -> Option<MissedCount> {
        if !self.remembers(since) {
            return None;
        }
        let changed = self.entries.iter().filter(|entry| entry.notification.revision > since);
        Some(changed.fold(MissedCount::default(), |count, entry| {
            let is_new = entry.notification.created_revision > since && !entry.is_deleted();
            MissedCount { changed: count.changed + 1, created: count.created + usize::from(is_new) }
        }))
    }

    /// What was created in that range and is still here, oldest first.
    pub fn created_in(&self, range: ReplayRange) -> impl Iterator<Item = &Notification> {
        let present = self.entries.iter().filter(|entry| !entry.is_deleted());
        let notifications = present.map(|entry| &entry.notification);
        notifications.filter(move |one| range.contains(one.created_revision))
    }

    /// What was read or deleted by its latest change in that range, by revision. What the device never
    /// saw and cannot see any more is left out. `None` if some of the range is forgotten.
    pub fn changed_in(&self, range: ReplayRange) -> Option<Vec<MissedChange>> {
        if !self.remembers(range.after) {
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

    fn remembers(&self, since: Revision) -> bool {
        (self.history_floor..=self.state.revision).contains(&since)
    }

    fn unknown(&self, ids: &[NotificationId]) -> Vec<NotificationId> {
        let mut seen: BTreeSet<_> = self.entries.iter().map(|one| &one.notification.id).collect();
        ids.iter().filter(|id| seen.insert(id)).cloned().collect()
    }

    fn twin_of(&self, draft: &Draft) -> Option<&Entry> {
        self.entries.iter().find(|entry| {
            entry.notification.id == draft.id
                || (draft.dedupe_key.is_some() && entry.dedupe_key == draft.dedupe_key)
        })
    }

    fn changed(&mut self, change: Change) -> DomainEvent {
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
