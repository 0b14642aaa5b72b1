use belfry_domain::Revision;

use crate::push::PushBatch;

/// Keeps the pushes of one device in order: holds live pushes back during a replay, drops duplicates
/// and detects gaps.
///
/// The changes of an inbox have consecutive revisions, and each change is delivered after it is stored. A
/// batch with the next revision passes. A batch with an older revision was delivered before. A batch
/// with a later revision shows that an event was lost; the store still has the change. A batch that replaces
/// the whole inbox passes after any older revision, because no earlier change is needed any more.
#[derive(Debug)]
pub(super) struct Gate<T> {
    state: State<T>,
    max_held: usize,
}

#[derive(Debug)]
enum State<T> {
    /// The device catches up.
    Closed {
        /// Live batches, in order of arrival.
        held: Vec<(Position, T)>,
        /// A batch did not fit into `held`, or may have been lost.
        incomplete: bool,
    },
    /// The device is up to date.
    Open { last_delivered: Revision },
}

/// The position of a batch among the changes of its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// The batch belongs to no stored change, so it is never stale and never reveals a gap.
    NotStored,
    /// The change with this revision.
    Change(Revision),
    /// The change with this revision, which replaces the whole inbox.
    StartOver(Revision),
}

impl Position {
    /// The position of a batch.
    pub(super) fn of(batch: &PushBatch) -> Self {
        match batch.revision {
            None => Self::NotStored,
            Some(revision) if batch.starts_over => Self::StartOver(revision),
            Some(revision) => Self::Change(revision),
        }
    }
}

/// The gate's decision on a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage<T> {
    /// Send it now.
    Pass(T),
    /// The gate keeps it until the replay ends.
    Held,
    /// It was delivered before. Drop it.
    Stale,
    /// An earlier event is missing. The gate is closed now, and the device must catch up from this
    /// revision, the last one delivered.
    Gap(Revision),
}

/// The result of [`Gate::release`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Release<T> {
    /// The gate is open.
    Open,
    /// Send these held batches in this order, then release again with this revision. The gate stays
    /// closed meanwhile, so that a slow device is not flooded.
    Held(Vec<T>, Revision),
    /// The held batches are incomplete: more arrived than the gate holds, or an event was lost. They
    /// are dropped and the gate stays closed. The device must catch up again.
    Gap,
}

impl<T> Gate<T> {
    /// A closed gate that holds at most `max_held` batches.
    pub(super) fn closed(max_held: usize) -> Self {
        Self { state: State::closed(), max_held }
    }

    /// Decides whether a batch is sent, held or dropped.
    pub(super) fn offer(&mut self, position: Position, item: T) -> Passage<T> {
        match &mut self.state {
            State::Open { last_delivered } => match Sequence::advance(last_delivered, position) {
                Sequence::Next => Passage::Pass(item),
                Sequence::Stale => Passage::Stale,
                Sequence::Gap => {
                    let last_delivered = *last_delivered;
                    self.state = State::closed();
                    Passage::Gap(last_delivered)
                }
            },
            State::Closed { held, incomplete } => {
                if held.len() < self.max_held {
                    held.push((position, item));
                } else {
                    *incomplete = true;
                }
                Passage::Held
            }
        }
    }

    /// Call it when the device has been sent everything up to and including `last_delivered`. Opens the
    /// gate unless newer batches are held.
    pub(super) fn release(&mut self, mut last_delivered: Revision) -> Release<T> {
        let State::Closed { held, incomplete } = &mut self.state else {
            return Release::Open;
        };
        let held = std::mem::take(held);
        if std::mem::take(incomplete) {
            return Release::Gap;
        }
        let mut to_send = Vec::with_capacity(held.len());
        for (position, item) in held {
            match Sequence::advance(&mut last_delivered, position) {
                Sequence::Next => to_send.push(item),
                Sequence::Stale => {}
                Sequence::Gap => return Release::Gap,
            }
        }
        if to_send.is_empty() {
            self.state = State::Open { last_delivered };
            return Release::Open;
        }
        Release::Held(to_send, last_delivered)
    }

    /// Closes the gate before the device catches up again. Returns the last delivered revision, or `None`
    /// if the gate was closed already.
    pub(super) fn close(&mut self) -> Option<Revision> {
        match self.state {
            State::Open { last_delivered } => {
                self.state = State::closed();
                Some(last_delivered)
            }
            State::Closed { .. } => None,
        }
    }

    /// Call it when events may have been lost although no later event has revealed a gap. Closes an open gate
    /// like [`close`](Self::close). For a closed gate, the next release returns [`Release::Gap`], so that the
    /// running replay reads the store once more.
    pub(super) fn report_loss(&mut self) -> Option<Revision> {
        if let State::Closed { incomplete, .. } = &mut self.state {
            *incomplete = true;
        }
        self.close()
    }
}

impl<T> State<T> {
    const fn closed() -> Self {
        Self::Closed { held: Vec::new(), incomplete: false }
    }
}

/// How a batch relates to the last delivered revision.
enum Sequence {
    Next,
    Stale,
    Gap,
}

impl Sequence {
    /// Advances `last_delivered` if the batch is the next one.
    fn advance(last_delivered: &mut Revision, position: Position) -> Self {
        let (revision, is_next) = match position {
            Position::NotStored => return Self::Next,
            Position::Change(revision) => (revision, revision == last_delivered.next()),
            Position::StartOver(revision) => (revision, true),
        };
        if revision <= *last_delivered {
            Self::Stale
        } else if is_next {
            *last_delivered = revision;
            Self::Next
        } else {
            Self::Gap
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn revision(number: u64) -> Position {
        Position::Change(Revision::new(number))
    }

    fn start_over(number: u64) -> Position {
        Position::StartOver(Revision::new(number))
    }

    #[test]
    fn replayed_revision_is_not_delivered_again() {
        let mut gate = Gate::closed(10);
        for number in 3..=6 {
            assert_eq!(gate.offer(revision(number), number), Passage::Held);
        }
        let last_delivered = Revision::new(6);
        assert_eq!(gate.release(Revision::new(4)), Release::Held(vec![5, 6], last_delivered));
        assert_eq!(gate.release(last_delivered), Release::Open);
        assert_eq!(gate.offer(revision(6), 6), Passage::Stale);
        assert_eq!(gate.offer(revision(7), 7), Passage::Pass(7));
    }

    #[test]
    fn batch_without_revision_is_held_and_never_stale() {
        let mut gate = Gate::closed(10);
        let last_delivered = Revision::new(9);
        assert_eq!(gate.offer(Position::NotStored, 1), Passage::Held);
        assert_eq!(gate.release(last_delivered), Release::Held(vec![1], last_delivered));
        assert_eq!(gate.release(last_delivered), Release::Open);
        assert_eq!(gate.offer(Position::NotStored, 2), Passage::Pass(2));
    }

    #[test]
    fn batch_that_arrives_during_a_release_is_held() {
        let mut gate = Gate::closed(10);
        gate.offer(revision(1), 1);
        assert_eq!(gate.release(Revision::ZERO), Release::Held(vec![1], Revision::new(1)));
        assert_eq!(gate.offer(revision(2), 2), Passage::Held);
        assert_eq!(gate.release(Revision::new(1)), Release::Held(vec![2], Revision::new(2)));
        assert_eq!(gate.release(Revision::new(2)), Release::Open);
    }

    #[test]
    fn overflow_is_reported_once_and_keeps_the_gate_closed() {
        let mut gate = Gate::closed(1);
        gate.offer(revision(1), 1);
        gate.offer(revision(2), 2);
        assert_eq!(gate.release(Revision::ZERO), Release::Gap);
        assert_eq!(gate.offer(revision(3), 3), Passage::Held);
        assert_eq!(gate.release(Revision::new(2)), Release::Held(vec![3], Revision::new(3)));
    }

    #[test]
    fn closed_gate_holds_the_next_batch() {
        let mut gate = Gate::closed(10);
        assert_eq!(gate.close(), None, "the gate is closed already");
        assert_eq!(gate.release(Revision::new(3)), Release::Open);
        assert_eq!(gate.close(), Some(Revision::new(3)));
        assert_eq!(gate.offer(revision(4), 4), Passage::Held);
    }

    #[test]
    fn reported_loss_causes_one_gap() {
        let mut gate = Gate::closed(10);
        assert_eq!(gate.report_loss(), None, "the gate is closed already");
        gate.offer(revision(4), 4);
        assert_eq!(gate.release(Revision::new(3)), Release::Gap);
        assert_eq!(gate.release(Revision::new(5)), Release::Open);
        assert_eq!(gate.report_loss(), Some(Revision::new(5)));
        assert_eq!(gate.release(Revision::new(5)), Release::Open);
    }

    #[test]
    fn lost_event_is_detected() {
        let mut gate = Gate::closed(10);
        assert_eq!(gate.release(Revision::new(3)), Release::Open);
        assert_eq!(gate.offer(revision(5), 5), Passage::Gap(Revision::new(3)));
        assert_eq!(gate.offer(revision(6), 6), Passage::Held, "the device catches up first");
        assert_eq!(gate.release(Revision::new(5)), Release::Held(vec![6], Revision::new(6)));

        let mut gate = Gate::closed(10);
        gate.offer(revision(7), 7);
        assert_eq!(gate.release(Revision::new(5)), Release::Gap, "6 is missing");
        assert_eq!(gate.release(Revision::new(7)), Release::Open);
    }

    #[test]
    fn batch_that_starts_over_passes_after_any_older_revision() {
        let mut gate = Gate::closed(10);
        assert_eq!(gate.release(Revision::new(3)), Release::Open);
        assert_eq!(gate.offer(start_over(9), 9), Passage::Pass(9));
        assert_eq!(gate.offer(start_over(9), 9), Passage::Stale, "a redelivery is stale");
        assert_eq!(gate.offer(revision(5), 5), Passage::Stale, "the inbox of 5 was replaced");
        assert_eq!(gate.offer(revision(10), 10), Passage::Pass(10));

        let mut gate = Gate::closed(10);
        gate.offer(start_over(9), 9);
        gate.offer(revision(10), 10);
        assert_eq!(gate.release(Revision::new(3)), Release::Held(vec![9, 10], Revision::new(10)));
        gate.offer(start_over(9), 9);
        assert_eq!(gate.release(Revision::new(10)), Release::Open, "the replay included 9");
    }

    fn release_all(gate: &mut Gate<u64>, mut last_delivered: Revision) -> Vec<u64> {
        let mut released = Vec::new();
        loop {
            match gate.release(last_delivered) {
                Release::Open => return released,
                Release::Held(items, up_to) => {
                    released.extend(items);
                    last_delivered = up_to;
                }
                Release::Gap => panic!("the gate is large enough"),
            }
        }
    }

    proptest! {
        /// Live events arrive in order, each once or repeatedly, and begin at any revision that the replay
        /// includes. The device receives each revision once and in order, whatever the timing.
        #[test]
        fn each_revision_is_delivered_once_and_in_order(
            newest in 1..40_u64,
            first_live in 0..40_u64,
            repeats in prop::collection::vec(1..3_usize, 41),
            replay_ends_at in 0..40_u64,
            open_after in any::<prop::sample::Index>(),
        ) {
            // The replay reads the store, which has every event delivered before the read.
            let replay_ends_at = replay_ends_at.min(newest);
            let first_live = first_live.min(replay_ends_at);
            let live: Vec<u64> = (first_live + 1..=newest)
                .flat_map(|number| std::iter::repeat_n(number, repeats[usize::try_from(number).unwrap()]))
                .collect();
            let mut gate = Gate::closed(1_000);
            let mut received: Vec<u64> = Vec::new();
            let open_after = open_after.index(live.len() + 1);
            let open = |gate: &mut Gate<u64>, received: &mut Vec<u64>| {
                received.extend(1..=replay_ends_at);
                received.extend(release_all(gate, Revision::new(replay_ends_at)));
            };
            for (n, number) in live.iter().enumerate() {
                if n == open_after {
                    open(&mut gate, &mut received);
                }
                if let Passage::Pass(number) = gate.offer(revision(*number), *number) {
                    received.push(number);
                }
            }
            if open_after >= live.len() {
                open(&mut gate, &mut received);
            }
            prop_assert_eq!(received, (1..=newest).collect::<Vec<_>>());
        }
    }
}
