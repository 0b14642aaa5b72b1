//! Replaying missed changes to a device, page by page, while the inbox keeps changing.

use std::collections::BTreeMap;

use crate::event::Change;
use crate::inbox_state::Revision;
use crate::notification::{Notification, NotificationId};
use crate::time::Timestamp;

/// The revisions that a replay still has to deliver: later than `after`, up to and including `up_to`.
///
/// `up_to` is the inbox's revision when the replay was planned, and does not change. A notification that
/// changes while pages are read gets a later revision and so leaves the range. Its new change arrives as a
/// live event, which the session's gate holds until the replay is complete. A page depends only on the
/// range, so a replay keeps no other state between two pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRange {
    /// The device's revision when the replay began. Only later notifications are new to it.
    pub since: Revision,
    /// Changes up to this revision have been delivered; equals `since` before the first page.
    pub after: Revision,
    /// The last revision of the replay.
    pub up_to: Revision,
}

impl ReplayRange {
    /// A replay of everything after `since`, before its first page.
    pub const fn new(since: Revision, up_to: Revision) -> Self {
        Self { since, after: since, up_to }
    }

    /// Whether everything has been delivered.
    pub fn is_done(&self) -> bool {
        self.after >= self.up_to
    }

    /// Whether the change at `revision` still has to be delivered.
    pub fn contains(&self, revision: Revision) -> bool {
        self.after < revision && revision <= self.up_to
    }
}

/// The number of notifications that changed after a given revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MissedCount {
    /// Notifications whose latest change is later than the revision, including deleted ones.
    pub changed: usize,
    /// Those of them that were created after the revision and are not deleted.
    pub created: usize,
}

/// The latest change of a notification that was read or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedChange {
    /// The notification.
    pub id: NotificationId,
    /// The revision of the change.
    pub revision: Revision,
    /// When the user read it; `None` if it was deleted instead.
    pub read_at: Option<Timestamp>,
}

/// One page of changes to replay, from the device's point of view: a notification that it never saw is
/// new to it, even if the user has read it on another device.
///
/// Revisions increase strictly, and all changes of one revision are in one element. A device that
/// loses its connection half-way can therefore resume from the last revision it received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayBatch(Vec<(Revision, Change)>);

impl ReplayBatch {
    /// Merges the notifications created in a range with the other changes of that range.
    pub fn merge(created: Vec<Notification>, changes: Vec<MissedChange>) -> Self {
        let mut missed: BTreeMap<Revision, Change> = BTreeMap::new();
        for notification in created {
            let revision = notification.created_revision;
            // A created notification is sent with the revision of its creation, even if it has changed since.
            // A device that loses its connection right after it resumes from that revision.
            let as_created = Notification { revision, ..notification };
            missed.insert(revision, Change::Created(Box::new(as_created)));
        }
        for MissedChange { id, revision, read_at } in changes {
            let empty_change = || match read_at {
                Some(read_at) => Change::MarkedRead { ids: vec![], read_at },
                None => Change::Deleted { ids: vec![] },
            };
            match (missed.entry(revision).or_insert_with(empty_change), read_at) {
                (Change::MarkedRead { ids, .. }, Some(_)) | (Change::Deleted { ids }, None) => {
                    ids.push(id);
                }
                // One revision is one change. A store that violates this must fail tests, but must
                // not break a device's connection in production.
                (other, _) => {
                    debug_assert!(false, "one revision with two kinds of change: {other:?}");
                }
            }
        }
        Self(missed.into_iter().collect())
    }

    /// Whether the page contains no change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for ReplayBatch {
    type Item = (Revision, Change);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
