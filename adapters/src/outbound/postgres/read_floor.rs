use std::ops::RangeInclusive;

/// An id up to which the outbox has no entries, and will never have any. Reads start after it.
///
/// The index keeps pointers to deleted rows until no transaction can see those rows. During a long transaction,
/// such as a backup, a read from the beginning would scan all rows deleted since the transaction began.
///
/// An entry's id is assigned before its transaction commits, so an entry may become visible after one with a
/// higher id. Every transaction that has taken a lower entry id already has a transaction id, because it locked
/// the inbox first. So when a read finds an entry, the id of each of those transactions is below the next one that
/// the server will assign. Once all transactions below that are finished, no entry with a lower id can appear.
///
/// The `xmax` of the read's snapshot would be too low: it follows the last transaction that has finished, and later
/// ones may have taken their entry ids already.
#[derive(Debug, Default)]
pub(super) struct ReadFloor {
    id: i64,
    /// The next floor, and the id of the next transaction when it was read: the floor is raised when all
    /// transactions below that are finished.
    candidate: Option<(i64, i64)>,
}

/// The ids of transactions at the time of a read.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct TransactionIds {
    /// All transactions with lower ids were finished.
    oldest_running: i64,
    /// No transaction had this id or a higher one.
    next: i64,
}

impl ReadFloor {
    pub(super) const fn id(&self) -> i64 {
        self.id
    }

    /// Raises the floor after a read that found entries with these lowest and highest ids.
    pub(super) fn raise(&mut self, found: RangeInclusive<i64>, ids: TransactionIds) {
        if let Some((candidate, next_when_read)) = self.candidate {
            if ids.oldest_running < next_when_read {
                return;
            }
            self.id = candidate.min(found.start() - 1);
        }
        self.candidate = Some((*found.end(), ids.next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn transactions(oldest_running: i64, next: i64) -> TransactionIds {
        TransactionIds { oldest_running, next }
    }

    #[test]
    fn floor_rises_to_the_last_id_of_a_read_when_the_transactions_of_that_time_are_finished() {
        let mut floor = ReadFloor::default();
        floor.raise(1..=9, transactions(100, 110));
        assert_eq!(floor.id(), 0);
        floor.raise(10..=20, transactions(110, 120));
        assert_eq!(floor.id(), 9);
        floor.raise(21..=22, transactions(121, 121));
        assert_eq!(floor.id(), 20);
    }

    #[test]
    fn floor_waits_for_a_transaction_that_may_still_write_an_entry() {
        let mut floor = ReadFloor::default();
        floor.raise(5..=9, transactions(100, 110));
        for id in 10..20 {
            floor.raise(id..=id, transactions(109, 110 + id));
        }
        assert_eq!(floor.id(), 0);
        floor.raise(4..=4, transactions(110, 130));
        assert_eq!(floor.id(), 3);
    }

    #[test]
    fn floor_stays_below_entries_that_are_still_stored() {
        let mut floor = ReadFloor::default();
        for n in 1..5 {
            floor.raise(3..=9, transactions(100 * n, 100 * n));
        }
        assert_eq!(floor.id(), 2);
    }
}
