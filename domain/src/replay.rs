//! What a device missed, and how it is read in pages while the inbox goes on changing.

use std::collections::BTreeMap;

use crate::{Change, Notification, NotificationId, Revision, Timestamp};

/// The part of an inbox's history that a replay has still to deliver: the changes later than `after`,
/// up to and including `up_to`.
///
/// `up_to` stays where the inbox stood when the replay was planned. Rows that change while pages are
/// read therefore only leave the range: what they become is a live event, which the session's gate
/// holds back until the replay is complete. A page depends on nothing but the range, so a replay
/// remembers nothing else between two pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRange {
    /// What the device had when the replay began. Only a notification created later is new to it.
    pub since: Revision,
    /// Where the pages delivered so far end; `since` before the first one.
    pub after: Revision,
    /// Where the replay ends.
    pub up_to: Revision,
}

impl ReplayRange {
    /// A replay of everything after `since`, before its first page.
    pub const fn new(since: Revision, up_to: Revision) -> Self {
        Self { since, after: since, up_to }
    }

    /// Whether nothing is left to deliver.
    pub fn is_done(&self) -> bool {
        self.after >= self.up_to
    }

    /// Whether a change at `revision` is still to be delivered.
    pub fn contains(&self, revision: Revision) -> bool {
        self.after < revision && revision <= self.up_to
    }
}

/// How much of an inbox changed after a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MissedCount {
    /// Notifications whose latest change is later, deleted ones included.
    pub changed: usize,
    /// Those of them that were created later and are not deleted.
    pub created: usize,
}

/// The latest change of a notification, where that is something other than its creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedChange {
    /// Which notification.
    pub id: NotificationId,
    /// The revision of the change.
    pub revision: Revision,
    /// When the user read it; `None` if it was deleted instead.
    pub read_at: Option<Timestamp>,
}

/// A page of what a device missed, as each change is to that device: what it never saw is new to it,
/// even if it has been read elsewhere meanwhile.
///
/// Revisions grow from one element to the next, and one revision is never divided. A device that is
/// cut off half-way therefore loses nothing by asking again from the last revision that it saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed(Vec<(Revision, Change)>);

impl Missed {
    /// Merges what was created in a range with what else happened in it.
    pub fn of(created: Vec<Notification>, changes: Vec<MissedChange>) -> Self {
        let mut missed: BTreeMap<Revision, Change> = BTreeMap::new();
        for notification in created {
            let revision = notification.created_revision;
            // It carries the revision that the event had when it was live, so that a device which is
            // cut off right after it resumes there.
            let as_created = Notification { revision, ..notification };
            missed.insert(revision, Change::Created(Box::new(as_created)));
        }
        for MissedChange { id, revision, read_at } in changes {
            let empty = || match read_at {
                Some(read_at) => Change::MarkedRead { ids: vec![], read_at },
                None => Change::Deleted { ids: vec![] },
            };
            match (missed.entry(revision).or_insert_with(empty), read_at) {
                (Change::MarkedRead { ids, .. }, Some(_)) | (Change::Deleted { ids }, None) => {
                    ids.push(id);
                }
                // One revision is one change. A store that breaks this shall be seen in tests and
                // shall not take a device's connection down.
                (other, _) => {
                    debug_assert!(false, "one revision with two kinds of change: {other:?}");
                }
            }
        }
        Self(missed.into_iter().collect())
    }

    /// Whether there is nothing to deliver.
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
