use belfry_domain::Revision;

/// Keeps one device's announcements in order: holds back live ones while it catches up, lets nothing
/// through twice, and notices when something is missing.
///
/// Every change of an inbox takes the next revision and is announced once it is stored. So what comes
/// with the next revision may go out, what comes with an older one was told before, and what comes
/// with a later one shows that something between was lost on its way; the store has it.
#[derive(Debug)]
pub struct Gate<T> {
    state: State<T>,
    bound: usize,
}

#[derive(Debug)]
enum State<T> {
    /// `incomplete` if not all that came is in `held`.
    Holding {
        held: Vec<(Option<Revision>, T)>,
        incomplete: bool,
    },
    Live {
        told: Revision,
    },
}

/// What a gate does with an announcement.
#[derive(Debug, PartialEq, Eq)]
pub enum Passage<T> {
    /// It may go out now.
    Pass(T),
    /// It waits for the replay.
    Held,
    /// The device has heard it.
    Stale,
    /// Something between it and what the device was told, up to this revision, is missing. The gate
    /// is closed now: the device must catch up from there.
    Gap(Revision),
}

/// What is left to do before a gate is open.
#[derive(Debug, PartialEq, Eq)]
pub enum Release<T> {
    /// Nothing: it is open.
    Open,
    /// These were held back and are to go out, in this order; ask again with the revision told then.
    /// Meanwhile the gate goes on holding, so a device that reads slowly is not flooded.
    Held(Vec<T>, Revision),
    /// What was held back does not follow on what was told: more came in than the gate holds, or
    /// something was lost on its way. It is dropped, and the gate stays closed: the device must catch
    /// up again.
    Gap,
}

impl<T> Gate<T> {
    /// A closed gate, which holds back at most `bound` announcements.
    pub fn holding(bound: usize) -> Self {
        Self { state: State::closed(), bound }
    }

    /// Asks to let an announcement through. What has no revision is not stored anywhere, so it can
    /// be neither stale nor repeated nor missed.
    pub fn offer(&mut self, revision: Option<Revision>, item: T) -> Passage<T> {
        match &mut self.state {
            State::Live { told } => match Follows::on(told, revision) {
                Follows::Next => Passage::Pass(item),
                Follows::Before => Passage::Stale,
                Follows::Later => {
                    let told = *told;
                    self.state = State::closed();
                    Passage::Gap(told)
                }
            },
            State::Holding { held, incomplete } => {
                if held.len() < self.bound {
                    held.push((revision, item));
                } else {
                    *incomplete = true;
                }
                Passage::Held
            }
        }
    }

    /// The device has been told all up to and with `told`: opens the gate, unless something newer is
    /// held back.
    pub fn release(&mut self, mut told: Revision) -> Release<T> {
        let State::Holding { held, incomplete } = &mut self.state else {
            return Release::Open;
        };
        let held = std::mem::take(held);
        if std::mem::take(incomplete) {
            return Release::Gap;
        }
        let mut news = Vec::with_capacity(held.len());
        for (revision, item) in held {
            match Follows::on(&mut told, revision) {
                Follows::Next => news.push(item),
                Follows::Before => {}
                Follows::Later => return Release::Gap,
            }
        }
        if news.is_empty() {
            self.state = State::Live { told };
            return Release::Open;
        }
        Release::Held(news, told)
    }

    /// Something may be lost on its way without a trace. Holds back again like [`hold`](Self::hold); a gate
    /// that is closed already asks for what is missing once it is released.
    pub fn distrust(&mut self) -> Option<Revision> {
        if let State::Holding { incomplete, .. } = &mut self.state {
            *incomplete = true;
        }
        self.hold()
    }

    /// Holds back again, for a device that shall catch up anew. Answers up to where it was told, or
    /// nothing if it is at that already.
    pub fn hold(&mut self) -> Option<Revision> {
        match self.state {
            State::Live { told } => {
                self.state = State::closed();
                Some(told)
            }
            State::Holding { .. } => None,
        }
    }
}

impl<T> State<T> {
    const fn closed() -> Self {
        Self::Holding { held: Vec::new(), incomplete: false }
    }
}

/// How an announcement stands to what a device was told.
enum Follows {
    Next,
    Before,
    Later,
}

impl Follows {
    /// Counts what comes next as told.
    fn on(told: &mut Revision, revision: Option<Revision>) -> Self {
        match revision {
            None => Self::Next,
            Some(revision) if revision <= *told => Self::Before,
            Some(revision) if revision == told.next() => {
                *told = revision;
                Self::Next
            }
            Some(_) => Self::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the gate takes it")]
    fn revision(number: u64) -> Option<Revision> {
        Some(Revision::new(number))
    }

    #[test]
    fn what_the_replay_told_is_not_told_again() {
        let mut gate = Gate::holding(10);
        for number in 3..=6 {
            assert_eq!(gate.offer(revision(number), number), Passage::Held);
        }
        let told = Revision::new(6);
        assert_eq!(gate.release(Revision::new(4)), Release::Held(vec![5, 6], told));
        assert_eq!(gate.release(told), Release::Open);
        assert_eq!(gate.offer(revision(6), 6), Passage::Stale);
        assert_eq!(gate.offer(revision(7), 7), Passage::Pass(7));
    }

    #[test]
    fn what_is_not_stored_waits_and_is_never_stale() {
        let mut gate = Gate::holding(10);
        let told = Revision::new(9);
        assert_eq!(gate.offer(None, 1), Passage::Held);
        assert_eq!(gate.release(told), Release::Held(vec![1], told));
        assert_eq!(gate.release(told), Release::Open);
        assert_eq!(gate.offer(None, 2), Passage::Pass(2));
    }

    #[test]
    fn what_comes_while_held_ones_go_out_waits_its_turn() {
        let mut gate = Gate::holding(10);
        gate.offer(revision(1), 1);
        assert_eq!(gate.release(Revision::ZERO), Release::Held(vec![1], Revision::new(1)));
        assert_eq!(gate.offer(revision(2), 2), Passage::Held);
        assert_eq!(gate.release(Revision::new(1)), Release::Held(vec![2], Revision::new(2)));
        assert_eq!(gate.release(Revision::new(2)), Release::Open);
    }

    #[test]
    fn a_gate_that_overflowed_stays_closed_and_says_so_once() {
        let mut gate = Gate::holding(1);
        gate.offer(revision(1), 1);
        gate.offer(revision(2), 2);
        assert_eq!(gate.release(Revision::ZERO), Release::Gap);
        assert_eq!(gate.offer(revision(3), 3), Passage::Held);
        assert_eq!(gate.release(Revision::new(2)), Release::Held(vec![3], Revision::new(3)));
    }

    #[test]
    fn a_device_that_asks_anew_is_held_back_again() {
        let mut gate = Gate::holding(10);
        assert_eq!(gate.hold(), None, "it is at that already");
        assert_eq!(gate.release(Revision::new(3)), Release::Open);
        assert_eq!(gate.hold(), Some(Revision::new(3)));
        assert_eq!(gate.offer(revision(4), 4), Passage::Held);
    }

    #[test]
    fn a_distrusted_gate_asks_for_what_is_missing_once() {
        let mut gate = Gate::holding(10);
        assert_eq!(gate.distrust(), None, "it holds back already");
        gate.offer(revision(4), 4);
        assert_eq!(gate.release(Revision::new(3)), Release::Gap);
        assert_eq!(gate.release(Revision::new(5)), Release::Open);
        assert_eq!(gate.distrust(), Some(Revision::new(5)));
        assert_eq!(gate.release(Revision::new(5)), Release::Open);
    }

    #[test]
    fn what_is_lost_on_its_way_is_noticed() {
        let mut gate = Gate::holding(10);
        assert_eq!(gate.release(Revision::new(3)), Release::Open);
        assert_eq!(gate.offer(revision(5), 5), Passage::Gap(Revision::new(3)));
        assert_eq!(gate.offer(revision(6), 6), Passage::Held, "the device catches up first");
        assert_eq!(gate.release(Revision::new(5)), Release::Held(vec![6], Revision::new(6)));

        let mut gate = Gate::holding(10);
        gate.offer(revision(7), 7);
        assert_eq!(gate.release(Revision::new(5)), Release::Gap, "6 is missing");
        assert_eq!(gate.release(Revision::new(7)), Release::Open);
    }

    fn release_all(gate: &mut Gate<u64>, mut told: Revision) -> Vec<u64> {
        let mut released = Vec::new();
        loop {
            match gate.release(told) {
                Release::Open => return released,
                Release::Held(items, up_to) => {
                    released.extend(items);
                    told = up_to;
                }
                Release::Gap => panic!("the gate holds them all"),
            }
        }
    }

    proptest! {
        /// Live announcements come in order, each once or repeatedly, starting anywhere before the
        /// replay is out; the device hears each revision once and in order, whatever the timing.
        #[test]
        fn each_revision_is_heard_once_and_in_order(
            newest in 1..40_u64,
            first_live in 0..40_u64,
            repeats in prop::collection::vec(1..3_usize, 41),
            replay_ends_at in 0..40_u64,
            open_after in any::<prop::sample::Index>(),
        ) {
            // The replay reads the store: it knows all that was announced before it was read.
            let replay_ends_at = replay_ends_at.min(newest);
            let first_live = first_live.min(replay_ends_at);
            let live: Vec<u64> = (first_live + 1..=newest)
                .flat_map(|number| std::iter::repeat_n(number, repeats[usize::try_from(number).unwrap()]))
                .collect();
            let mut gate = Gate::holding(1_000);
            let mut heard: Vec<u64> = Vec::new();
            let open_after = open_after.index(live.len() + 1);
            let open = |gate: &mut Gate<u64>, heard: &mut Vec<u64>| {
                heard.extend(1..=replay_ends_at);
                heard.extend(release_all(gate, Revision::new(replay_ends_at)));
            };
            for (n, number) in live.iter().enumerate() {
                if n == open_after {
                    open(&mut gate, &mut heard);
                }
                if let Passage::Pass(number) = gate.offer(revision(*number), *number) {
                    heard.push(number);
                }
            }
            if open_after >= live.len() {
                open(&mut gate, &mut heard);
            }
            prop_assert_eq!(heard, (1..=newest).collect::<Vec<_>>());
        }
    }
}
