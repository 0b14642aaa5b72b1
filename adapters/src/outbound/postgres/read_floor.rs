use std::ops::RangeInclusive;

/// An id up to which the outbox has no entries, and will never have any. Reads start after it.
///
/// The index keeps the entries of removed rows until no transaction can see them. During a long transaction,
/// such as a backup, a read from the beginning would pass all that were removed since its start.
///
/// An id is taken before its entry is committed, so an entry may appear later than one with a higher id. When
/// an entry is visible in a snapshot, the transactions with lower ids are finished or still running in that
/// snapshot: an entry is written by a transaction that has a number already, because it has locked the inbox.
/// When all transactions of that snapshot are finished in a later one, no further entry with a lower id can
/// appear.
#[derive(Debug, Default)]
pub(super) struct ReadFloor {
    id: i64,
    /// The next floor, and the first transaction that need not be finished for it.
    candidate: Option<(i64, i64)>,
}

/// The running transactions when a statement began (`pg_current_snapshot`).
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Snapshot {
    /// All transactions before this one are finished.
    oldest_running: i64,
    /// No transaction from this one on has begun to write.
    next_transaction: i64,
}

impl ReadFloor {
    pub(super) const fn id(&self) -> i64 {
        self.id
    }

    /// Raises the floor after a read that found entries with these lowest and highest ids.
    pub(super) fn raise(&mut self, found: RangeInclusive<i64>, snapshot: Snapshot) {
        if let Some((candidate, first_unneeded)) = self.candidate {
            if snapshot.oldest_running < first_unneeded {
                return;
            }
            self.id = candidate.min(found.start() - 1);
        }
        self.candidate = Some((*found.end(), snapshot.next_transaction));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn snapshot(oldest_running: i64, next_transaction: i64) -> Snapshot {
        Snapshot { oldest_running, next_transaction }
    }

    #[test]
    fn floor_rises_to_the_entries_of_a_read_whose_transactions_are_finished() {
        let mut floor = ReadFloor::default();
        floor.raise(1..=9, snapshot(100, 110));
        assert_eq!(floor.id(), 0);
        floor.raise(10..=20, snapshot(110, 120));
        assert_eq!(floor.id(), 9);
        floor.raise(21..=22, snapshot(121, 121));
        assert_eq!(floor.id(), 20);
    }

    #[test]
    fn floor_waits_for_a_transaction_that_may_still_write_an_entry() {
        let mut floor = ReadFloor::default();
        floor.raise(5..=9, snapshot(100, 110));
        for id in 10..20 {
            floor.raise(id..=id, snapshot(109, 110 + id));
        }
        assert_eq!(floor.id(), 0);
        floor.raise(4..=4, snapshot(110, 130));
        assert_eq!(floor.id(), 3);
    }

    #[test]
    fn floor_stays_below_entries_that_are_still_stored() {
        let mut floor = ReadFloor::default();
        for n in 1..5 {
            floor.raise(3..=9, snapshot(100 * n, 100 * n));
        }
        assert_eq!(floor.id(), 2);
    }
}
