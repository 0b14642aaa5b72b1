//! One user's inbox: the rules by which it changes, counts and tells what a device missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::text;
use crate::{Change, DomainEvent, Draft, Due, Notification, NotificationId, Timestamp, UserId};

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
    pub fn forget_deleted(&mut self, deleted_before: Timestamp, limit: usize) -> usize {
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

    /// All that changed after `since`, tombstones included, by their latest change. `None` if it cannot
    /// be told: some of it is forgotten, or `since` has not been yet.
    pub fn changed_since(&self, since: Revision) -> Option<Vec<MissedChange>> {
        if !(self.history_floor..=self.state.revision).contains(&since) {
            return None;
        }
        let mut rows: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| entry.notification.revision > since)
            .map(|entry| MissedChange {
                notification: entry.notification.clone(),
                deleted: entry.is_deleted(),
            })
            .collect();
        rows.sort_by_key(|row| row.notification.revision);
        Some(rows)
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

/// A notification that changed while a device was away, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedChange {
    /// The notification after its latest change.
    pub notification: Notification,
    /// Whether it has been deleted; then only its ids and revisions still mean something.
    pub deleted: bool,
}

/// What a device missed, as each change is to that device: what it never saw is new to it, even if
/// it has been read elsewhere meanwhile; what came and went behind its back is nothing at all.
///
/// Revisions grow from one element to the next. A device that is cut off half-way therefore loses
/// nothing by asking again from the last revision that it saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed(Vec<(Revision, Change)>);

impl Missed {
    /// Works out what `rows` (all that changed after `since`) are to a device that saw `since`.
    pub fn since(since: Revision, rows: Vec<MissedChange>) -> Self {
        let mut told: BTreeMap<Revision, Change> = BTreeMap::new();
        for MissedChange { notification, deleted } in rows {
            let known = notification.created_revision <= since;
            let latest = notification.revision;
            let id = notification.id.clone();
            if deleted {
                if known {
                    match told.entry(latest).or_insert_with(|| Change::Deleted { ids: vec![] }) {
                        Change::Deleted { ids } => ids.push(id),
                        other => unreachable_mix(other),
                    }
                }
                continue;
            }
            if let Some(read_at) = notification.read_at {
                let change = Change::MarkedRead { ids: vec![], read_at };
                match told.entry(latest).or_insert(change) {
                    Change::MarkedRead { ids, .. } => ids.push(id),
                    other => unreachable_mix(other),
                }
            }
            if !known {
                let revision = notification.created_revision;
                let as_it_came = Notification { revision, ..notification };
                told.insert(revision, Change::Created(Box::new(as_it_came)));
            }
        }
        Self(told.into_iter().collect())
    }

    /// How many of them are notifications that the device never saw.
    pub fn new_notifications(&self) -> usize {
        self.0.iter().filter(|(_, change)| matches!(change, Change::Created(_))).count()
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Missed {
    type Item = (Revision, Change);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// One revision is one change, so it cannot be two kinds at once in a store that keeps its promise.
/// A store that broke it shall be seen in tests and shall not take a device's connection down.
fn unreachable_mix(found: &Change) {
    debug_assert!(false, "one revision with two kinds of change: {found:?}");
}
