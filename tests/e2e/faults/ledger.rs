use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// How long a request whose answer was lost may still take effect.
const AFTERMATH: Duration = Duration::from_secs(30);

/// What a user's producer knows to be safe. Notifications are known by their numbers, from zero.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How many were told.
    pub(super) told: usize,
    /// Those that were read.
    pub(super) read: BTreeSet<usize>,
    /// Those that may have been read.
    pub(super) perhaps_read: BTreeSet<usize>,
    /// Those that were deleted.
    pub(super) deleted: BTreeSet<usize>,
    /// How often something had to be said again.
    pub(super) again: usize,
    unsure_until: Option<Instant>,
}

impl Ledger {
    pub(super) fn tells(&mut self) {
        if self.unsure_until.is_some_and(|until| Instant::now() < until) {
            self.perhaps_read.insert(self.told);
        }
        self.told += 1;
    }

    /// All that was told was read. Where that was asked for more than once, a question that nobody
    /// answered may still be carried out, and then takes what is told until then.
    pub(super) fn reads_all(&mut self, asked_again: usize) {
        self.read.extend(0..self.told);
        self.again += asked_again;
        if asked_again > 0 {
            self.unsure_until = Some(Instant::now() + AFTERMATH);
        }
    }

    /// How many were read or deleted.
    pub(super) fn changed(&self) -> usize {
        self.read.union(&self.deleted).count()
    }

    /// Whether that number's state fits what is known.
    pub(super) fn allows(&self, number: usize, is_read: bool, is_deleted: bool) -> bool {
        if is_deleted || self.deleted.contains(&number) {
            return is_deleted && self.deleted.contains(&number);
        }
        is_read == self.read.contains(&number) || (is_read && self.perhaps_read.contains(&number))
    }
}
