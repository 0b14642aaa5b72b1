//! The record of the operations that were confirmed to a producer.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// How long after its retry a request whose response was lost may still take effect.
const LATE_EFFECT: Duration = Duration::from_secs(30);

/// The operations that were confirmed to a user's producer. Notifications are numbered from zero.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How many notifications were created.
    pub(super) created: usize,
    /// The notifications that were marked as read.
    pub(super) read: BTreeSet<usize>,
    /// The notifications that may have been marked as read; see [`record_all_read`](Self::record_all_read).
    pub(super) perhaps_read: BTreeSet<usize>,
    /// The notifications that were deleted.
    pub(super) deleted: BTreeSet<usize>,
    /// How often a message or request was retried.
    pub(super) retries: usize,
    /// Until this instant an earlier attempt of a retried "mark all read" may take effect.
    uncertain_until: Option<Instant>,
}

impl Ledger {
    pub(super) fn record_created(&mut self) {
        if self.uncertain_until.is_some_and(|until| Instant::now() < until) {
            self.perhaps_read.insert(self.created);
        }
        self.created += 1;
    }

    /// Records that all notifications so far were marked as read. If the request was retried, an earlier
    /// attempt without a response may still take effect later, and mark notifications that are created before
    /// that.
    pub(super) fn record_all_read(&mut self, retries: usize) {
        self.read.extend(0..self.created);
        self.retries += retries;
        if retries > 0 {
            self.uncertain_until = Some(Instant::now() + LATE_EFFECT);
        }
    }

    /// How many notifications were marked as read or deleted.
    pub(super) fn changed(&self) -> usize {
        self.read.union(&self.deleted).count()
    }

    /// Whether this state of a notification agrees with the confirmed operations.
    pub(super) fn allows(&self, number: usize, is_read: bool, is_deleted: bool) -> bool {
        if is_deleted || self.deleted.contains(&number) {
            return is_deleted && self.deleted.contains(&number);
        }
        is_read == self.read.contains(&number) || (is_read && self.perhaps_read.contains(&number))
    }
}
