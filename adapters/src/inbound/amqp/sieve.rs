use std::collections::{HashSet, VecDeque};
use std::iter::repeat_with;

use belfry_application::trace::{self, TraceParent};

use super::handling::{Failure, Handling};

/// Messages that wait to be done, and the way to tell a store that is down from a message that does
/// not work.
///
/// All are tried together. If that fails although the store works for others, the next round tries
/// them in parts half as large, until the one at fault stands alone. While nothing works at all, each
/// round knocks with one message only, each time another, so that neither a store that is down is
/// overrun nor one bad message keeps the others waiting. What an outage keeps from being done is never
/// at fault, even if it does not concern all.
///
/// Messages of one lane (one user's, say) are done in the order in which they came: one that has to
/// be tried again holds up those behind it, until it is done or known to be at fault.
pub(super) struct Sieve<M, O> {
    /// In the order in which they came.
    held: VecDeque<Held<M, O>>,
    taken: u64,
    /// How many are tried together.
    part: usize,
    /// Whether nothing worked in the last round.
    down: bool,
}

/// A message and what it asks for.
pub(super) struct Held<M, O> {
    pub(super) message: M,
    pub(super) order: O,
    pub(super) trace: Option<TraceParent>,
    /// Its place among those that were taken.
    place: u64,
    /// How often it failed alone while others worked.
    strikes: u8,
    /// How often it was what was knocked with, in vain.
    knocks: u32,
    /// Whether it was tried in vain.
    tried: bool,
}

impl<M, O> Held<M, O> {
    pub(super) fn new(message: M, order: O, trace: Option<TraceParent>) -> Self {
        Self { message, order, trace, place: 0, strikes: 0, knocks: 0, tried: false }
    }
}

/// What one round brought.
pub(super) struct Round<M> {
    /// Done, for good.
    pub(super) done: Vec<M>,
    /// Refused, and would be again.
    pub(super) refused: Vec<(M, Failure)>,
    /// Wait for something else, which may take long: they neither hold others up nor say that the
    /// store is down.
    pub(super) early: Vec<(M, Failure)>,
    /// Fail alone, while others work.
    pub(super) failed: Vec<(M, Failure)>,
    /// What kept the others, if there are others.
    pub(super) held_by: Option<Failure>,
    /// Whether anything worked.
    pub(super) works: bool,
}

impl<M> Default for Round<M> {
    fn default() -> Self {
        Self {
            done: vec![],
            refused: vec![],
            early: vec![],
            failed: vec![],
            held_by: None,
            works: false,
        }
    }
}

impl<M, O> Default for Sieve<M, O> {
    fn default() -> Self {
        Self { held: VecDeque::new(), taken: 0, part: usize::MAX, down: false }
    }
}

impl<M, O: Clone> Sieve<M, O> {
    /// How often a message may fail alone while others work: once may be a store that went down in
    /// the middle.
    const STRIKES: u8 = 2;

    /// How often the heads of all lanes are knocked with in vain before one from behind them may be:
    /// where there are no other lanes it may be that one message's fault. By then it has gone on for
    /// minutes.
    const KNOCKS: u32 = 100;

    pub(super) fn take(&mut self, mut held: Held<M, O>) {
        held.place = self.taken;
        self.taken += 1;
        self.held.push_back(held);
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Tries all that is held; what still waits is kept for the next round.
    pub(super) async fn round<H: Handling<Order = O>>(&mut self, handling: &H) -> Round<M> {
        let all = self.held.len();
        let mut round = Round::default();
        let mut again = Vec::new();
        let mut waiting = HashSet::new();
        // One that does not work may be the first; two say that it is not because of them.
        let mut knocks = if self.down { 1 } else { 2 };
        let mut tried = if self.down { self.knock::<H>() } else { self.next_part::<H>(&waiting) };
        while !tried.is_empty() {
            let answers = run(handling, &tried).await;
            let alone = tried.len() == 1;
            // One without an answer is not done.
            let silence = repeat_with(|| Err(Failure::Failed("no answer".into())));
            for (held, answer) in tried.into_iter().zip(answers.into_iter().chain(silence)) {
                match answer {
                    Ok(()) => round.done.push(held.message),
                    Err(error @ Failure::Rejected(_)) => {
                        round.refused.push((held.message, error));
                    }
                    Err(error @ Failure::TooEarly(_)) => round.early.push((held.message, error)),
                    Err(error @ (Failure::Unavailable(_) | Failure::Failed(_))) => {
                        waiting.insert(H::lane(&held.order));
                        again.push((held, alone, error));
                    }
                }
            }
            let answered = [round.done.len(), round.refused.len(), round.early.len()];
            round.works = answered.into_iter().any(|count| count > 0);
            knocks -= i32::from(!round.works);
            if knocks == 0 {
                break;
            }
            tried = self.next_part::<H>(&waiting);
        }
        self.keep(again, &mut round);
        self.down = !round.works;
        if self.held.is_empty() {
            self.part = usize::MAX;
        } else if round.works {
            self.part = (self.part.min(all) / 2).max(1);
        }
        round
    }

    /// The next ones to be tried together, but for those whose lane waits. Lanes in which nothing was
    /// tried in vain before come first, so that what does not work keeps nobody else waiting.
    fn next_part<H: Handling<Order = O>>(&mut self, waiting: &HashSet<H::Lane>) -> Vec<Held<M, O>> {
        // What hardly ever is otherwise: nothing waits, nothing was tried in vain.
        if waiting.is_empty()
            && self.held.len() <= self.part
            && !self.held.iter().any(|held| held.tried)
        {
            return self.held.drain(..).collect();
        }
        let lane = |held: &Held<M, O>| H::lane(&held.order);
        let slow: HashSet<_> = self.held.iter().filter(|held| held.tried).map(lane).collect();
        let is_free = |held: &Held<M, O>| !waiting.contains(&lane(held));
        let is_fresh = |held: &Held<M, O>| is_free(held) && !slow.contains(&lane(held));
        let any_fresh = self.held.iter().any(is_fresh);
        let mut part = Vec::new();
        let mut rest = VecDeque::with_capacity(self.held.len());
        for held in self.held.drain(..) {
            let next = if any_fresh { is_fresh(&held) } else { is_free(&held) };
            if next && part.len() < self.part {
                part.push(held);
            } else {
                rest.push_back(held);
            }
        }
        self.held = rest;
        part
    }

    /// The one to knock with: of the first of each lane the one that was tried least.
    fn knock<H: Handling<Order = O>>(&mut self) -> Vec<Held<M, O>> {
        let mut lanes = HashSet::new();
        let heads =
            self.held.iter().enumerate().filter(|(_, held)| lanes.insert(H::lane(&held.order)));
        let head = heads.min_by_key(|(_, held)| held.knocks);
        let least = || self.held.iter().enumerate().min_by_key(|(_, held)| held.knocks);
        let chosen = head.filter(|(_, held)| held.knocks < Self::KNOCKS).or_else(least);
        let place = chosen.map(|(place, _)| place);
        place.and_then(|place| self.held.remove(place)).into_iter().collect()
    }

    /// Puts those that failed back where they were, but those that have failed alone often enough.
    fn keep(&mut self, again: Vec<(Held<M, O>, bool, Failure)>, round: &mut Round<M>) {
        for (mut held, alone, error) in again {
            let suspect = matches!(error, Failure::Failed(_));
            held.strikes += u8::from(suspect && alone && round.works);
            held.knocks += u32::from(alone && !round.works);
            held.tried = true;
            if held.strikes >= Self::STRIKES {
                round.failed.push((held.message, error));
            } else {
                round.held_by = Some(error);
                self.held.push_back(held);
            }
        }
        self.held.make_contiguous().sort_by_key(|held| held.place);
    }
}

/// Runs what is tried together, as a part of their trace if they have one in common.
async fn run<M, H: Handling>(
    handling: &H,
    tried: &[Held<M, H::Order>],
) -> Vec<Result<(), Failure>> {
    let orders = tried.iter().map(|held| held.order.clone()).collect();
    let first = tried.first().and_then(|held| held.trace.as_ref());
    let common = first.filter(|trace| tried.iter().all(|held| held.trace.as_ref() == Some(trace)));
    trace::scope(common.cloned(), handling.run(orders)).await
}

#[cfg(test)]
mod tests;
