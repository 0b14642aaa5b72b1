use std::ops::RangeInclusive;

/// An id up to which the outbox has no entries, and will never have any. Reads start after it.
///
/// The index keeps pointers to deleted rows until no transaction can see those rows. During a long transaction,
/// such as a backup, a read from the beginning would scan all rows deleted since the transaction began.
///
/// An entry's id is assigned before its transaction commits, so an entry may become visible after one with a
/// higher id. Every transaction that has taken a lower entry id already has a transaction id, because it locked
/// the inbox first. So when an entry is visible in a snapshot, each of those transactions is below that snapshot's
/// `xmax`. Once a later snapshot's `xmin` has reached that `xmax`, they are all finished, and no entry with a lower
/// id can appear.
#[derive(Debug, Default)]
pub(super) struct ReadFloor {
    id: i64,
    /// The next floor, and the `xmax` of the snapshot it was read in: the floor is raised when all transactions
    /// below it are finished.
    candidate: Option<(i64, i64)>,
}

/// `xmin` and `xmax` of the snapshot of a statement (`pg_current_snapshot`).
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Snapshot {
    /// All transactions with lower ids are finished.
    xmin: i64,
    /// No transaction had this id or a higher one.
    xmax: i64,
}

impl ReadFloor {
    pub(super) const fn id(&self) -> i64 {
        self.id
    }

    /// Raises the floor after a read that found entries with these lowest and highest ids.
    pub(super) fn raise(&mut self, found: RangeInclusive<i64>, snapshot: Snapshot) {
        if let Some((candidate, required_xmin)) = self.candidate {
            if snapshot.xmin < required_xmin {
                return;
            }
            self.id = candidate.min(found.start() - 1);
        }
        self.candidate = Some((*found.end(), snapshot.xmax));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn snapshot(xmin: i64, xmax: i64) -> Snapshot {
        Snapshot { xmin, xmax }
    }

    #[test]
    fn floor_rises_to_the_last_id_of_a_read_when_the_transactions_of_that_time_are_finished() {
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
