//! What arrived: each event once, too often or never, and how long it took.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::clock;
use crate::packets::Stamp;

/// Latencies in microseconds, up to five minutes, within 0.1 %.
pub(crate) type Latency = Histogram<u64>;

const LONGEST: u64 = 300_000_000;

pub(crate) fn no_latency() -> Latency {
    Histogram::new_with_max(LONGEST, 3).expect("the bounds are fine")
}

/// Which events are on their way. One byte for each is all that is kept of it.
#[derive(Debug)]
pub(crate) struct Round {
    /// The number of the first event.
    first: u64,
    /// How many of them come before what is measured.
    warm: u64,
    /// How many sockets each event goes to.
    copies: u8,
    seen: Box<[AtomicU8]>,
    /// Copies of measured events that arrived.
    arrived: AtomicU64,
}

/// What became of the events that were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Copies that arrived, each counted once.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

impl Round {
    pub(crate) fn new(first: u64, warm: u64, total: u64, copies: u8) -> Arc<Self> {
        let seen = (0..total).map(|_| AtomicU8::new(0)).collect();
        Arc::new(Self { first, warm, copies, seen, arrived: AtomicU64::new(0) })
    }

    /// A round in which nothing is sent.
    pub(crate) fn none() -> Arc<Self> {
        Self::new(0, 0, 0, 1)
    }

    /// Notes an event; `true` if it is one of those that are measured.
    fn note(&self, seq: u64) -> bool {
        let Some(index) = seq.checked_sub(self.first) else { return false };
        let seen = usize::try_from(index).ok().and_then(|index| self.seen.get(index));
        let Some(seen) = seen else { return false };
        if seen.load(Relaxed) < u8::MAX {
            seen.fetch_add(1, Relaxed);
        }
        let measured = index >= self.warm;
        if measured {
            self.arrived.fetch_add(1, Relaxed);
        }
        measured
    }

    /// Copies of measured events that arrived so far, doubled ones included.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    /// Of the first `sent` events of this round.
    pub(crate) fn fate(&self, sent: u64) -> Fate {
        let mut fate = Fate { delivered: 0, lost: 0, doubled: 0 };
        let [warm, sent] = [self.warm, sent].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        for seen in self.seen.iter().take(sent).skip(warm) {
            let seen = seen.load(Relaxed);
            fate.delivered += u64::from(seen.min(self.copies));
            fate.lost += u64::from(self.copies.saturating_sub(seen));
            fate.doubled += u64::from(seen.saturating_sub(self.copies));
        }
        fate
    }
}

/// What one thread of clients has heard in a round.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) round: Arc<Round>,
    pub(crate) latency: Latency,
}

impl Received {
    pub(crate) fn of(round: Arc<Round>) -> Self {
        Self { round, latency: no_latency() }
    }

    /// Notes an event that was read from its socket at that time.
    pub(crate) fn event(&mut self, stamp: Stamp, read_at: u64) {
        if self.round.note(stamp.seq) {
            let took = read_at.saturating_sub(stamp.at) / 1_000;
            self.latency.saturating_record(took);
        }
    }
}

/// Counters of all clients since they began to connect.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Signed in at this moment.
    pub(crate) present: AtomicI64,
    /// The clock's time when somebody signed in last.
    pub(crate) last_arrival: AtomicU64,
    pub(crate) tries: AtomicU64,
    /// Tries that did not lead to a signed-in socket.
    pub(crate) failed: AtomicU64,
    /// Why the last of them did not.
    why: Mutex<String>,
    /// Signed-in sockets that ended, other than by their own wish.
    pub(crate) cut: AtomicU64,
    pub(crate) new: AtomicU64,
    pub(crate) unread: AtomicU64,
    /// Responses to polls; none with WebSockets.
    pub(crate) polls: AtomicU64,
}

impl Counters {
    pub(crate) fn came(&self) {
        self.present.fetch_add(1, Relaxed);
        self.last_arrival.store(clock::now(), Relaxed);
    }

    /// Why the last try failed that did.
    pub(crate) fn why(&self) -> String {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn failed(&self, why: &std::io::Error) {
        self.failed.fetch_add(1, Relaxed);
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why.to_string();
    }

    pub(crate) fn went(&self) {
        self.present.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_doubled_events_are_counted_where_they_are_measured() {
        let round = Round::new(100, 2, 6, 1);
        // 100 and 101 are warm-up, 99 and 106 belong to nobody, 104 comes twice, 105 never.
        for seq in [99, 100, 102, 103, 104, 104, 106] {
            round.note(seq);
        }
        assert_eq!(round.fate(6), Fate { delivered: 3, lost: 1, doubled: 1 });
        assert_eq!(round.fate(5), Fate { delivered: 3, lost: 0, doubled: 1 });
        assert_eq!(round.arrived(), 4);
    }

    #[test]
    fn every_device_of_a_user_has_a_copy_to_come() {
        let round = Round::new(0, 0, 2, 3);
        for seq in [0, 0, 0, 1, 1] {
            round.note(seq);
        }
        assert_eq!(round.fate(2), Fate { delivered: 5, lost: 1, doubled: 0 });
    }

    #[test]
    fn latency_counts_from_when_it_was_meant_to_be_sent() {
        let mut heard = Received::of(Round::new(0, 0, 1, 1));
        heard.event(Stamp { seq: 0, at: 1_000_000 }, 6_000_000);
        assert!((5_000..5_010).contains(&heard.latency.max()));
        assert_eq!(heard.latency.len(), 1);
    }
}
