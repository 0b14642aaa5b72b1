//! Deliveries: delivered, lost and duplicated events, and latency.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::packets::Stamp;

/// Latencies in microseconds, up to five minutes, within 0.1 %.
pub(crate) type Latency = Histogram<u64>;

const MAX_LATENCY: u64 = 300_000_000;

pub(crate) fn no_latency() -> Latency {
    Histogram::new_with_max(MAX_LATENCY, 3).expect("the bounds are valid")
}

/// A series of events, and how often clients have received each.
#[derive(Debug)]
pub(crate) struct Round {
    /// The number of the first event.
    first: u64,
    /// The number of warm-up events, which are not measured.
    warm: u64,
    /// The number of sockets that should receive each event.
    copies: u8,
    /// For each event, the number of copies that were received, at most 255.
    seen: Box<[AtomicU8]>,
    /// Received copies of measured events.
    arrived: AtomicU64,
}

/// Delivered, lost and duplicated copies of the measured events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliveryCounts {
    /// Received copies, without duplicates.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
}

impl Round {
    pub(crate) fn new(first: u64, warm: u64, total: u64, copies: u8) -> Arc<Self> {
        let seen = (0..total).map(|_| AtomicU8::new(0)).collect();
        Arc::new(Self { first, warm, copies, seen, arrived: AtomicU64::new(0) })
    }

    /// A round without events.
    pub(crate) fn none() -> Arc<Self> {
        Self::new(0, 0, 0, 1)
    }

    /// Records a received event. Returns true if the event is measured.
    fn record(&self, seq: u64) -> bool {
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

    /// Received copies of measured events so far, duplicates included.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    /// The counts of the first `sent` events of this round.
    pub(crate) fn delivery_counts(&self, sent: u64) -> DeliveryCounts {
        let mut delivery = DeliveryCounts { delivered: 0, lost: 0, duplicated: 0 };
        let [warm, sent] = [self.warm, sent].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        for seen in self.seen.iter().take(sent).skip(warm) {
            let seen = seen.load(Relaxed);
            delivery.delivered += u64::from(seen.min(self.copies));
            delivery.lost += u64::from(self.copies.saturating_sub(seen));
            delivery.duplicated += u64::from(seen.saturating_sub(self.copies));
        }
        delivery
    }
}

/// The events that the clients of one thread received in a round.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) round: Arc<Round>,
    pub(crate) latency: Latency,
    /// `None` until a client with outages receives an event.
    pub(crate) catch_up: Option<CatchUp>,
}

/// Delivery times of clients with outages.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// All events: from the event, or from the begin of the client's reconnect if that is later, to the delivery.
    pub(crate) reachable: Latency,
    /// Replayed events only, which were due before the client's last reconnect: from that reconnect to the
    /// delivery.
    pub(crate) replayed: Latency,
}

impl Received {
    pub(crate) fn of(round: Arc<Round>) -> Self {
        Self { round, latency: no_latency(), catch_up: None }
    }

    /// Records an event. `read_at` is the time of the tool's clock when it was read from the socket;
    /// `online_since` is when a client with outages began to connect, 0 for other clients.
    pub(crate) fn event(&mut self, stamp: Stamp, read_at: u64, online_since: u64) {
        if !self.round.record(stamp.seq) {
            return;
        }
        let since = |begin: u64| read_at.saturating_sub(begin) / 1_000;
        self.latency.saturating_record(since(stamp.at));
        if online_since > 0 {
            let catch_up = self.catch_up.get_or_insert_default();
            catch_up.reachable.saturating_record(since(stamp.at.max(online_since)));
            if stamp.at < online_since {
                catch_up.replayed.saturating_record(since(online_since));
            }
        }
    }
}

impl Default for CatchUp {
    fn default() -> Self {
        Self { reachable: no_latency(), replayed: no_latency() }
    }
}

impl CatchUp {
    pub(crate) fn add(&mut self, other: &Self) {
        let same = "all histograms have the same bounds";
        self.reachable.add(&other.reachable).expect(same);
        self.replayed.add(&other.replayed).expect(same);
    }
}

/// Counters of all clients since the first connection attempt.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Clients that are signed in now.
    pub(crate) connected: AtomicI64,
    pub(crate) attempts: AtomicU64,
    /// Failed attempts to sign in.
    pub(crate) failed: AtomicU64,
    /// The error of the last failed attempt.
    last_error: Mutex<String>,
    /// Signed-in clients whose connection was not closed by themselves.
    pub(crate) cut_off: AtomicU64,
    /// Received `notification:new` events.
    pub(crate) new: AtomicU64,
    /// Received `notification:unread_count` events.
    pub(crate) unread: AtomicU64,
    /// Engine.IO pings.
    pub(crate) pings: AtomicU64,
    /// Responses to polls; none with WebSockets.
    pub(crate) polls: AtomicU64,
}

impl Counters {
    pub(crate) fn record_connect(&self) {
        self.connected.fetch_add(1, Relaxed);
    }

    /// The error of the last failed attempt.
    pub(crate) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn record_failure(&self, error: &std::io::Error) {
        self.failed.fetch_add(1, Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
    }

    pub(crate) fn record_disconnect(&self) {
        self.connected.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_duplicated_measured_events_are_counted() {
        let round = Round::new(100, 2, 6, 1);
        // 100 and 101 are warm-up, 99 and 106 are outside of the round, 104 is received twice, 105 never.
        for seq in [99, 100, 102, 103, 104, 104, 106] {
            round.record(seq);
        }
        assert_eq!(
            round.delivery_counts(6),
            DeliveryCounts { delivered: 3, lost: 1, duplicated: 1 }
        );
        assert_eq!(
            round.delivery_counts(5),
            DeliveryCounts { delivered: 3, lost: 0, duplicated: 1 }
        );
        assert_eq!(round.arrived(), 4);
    }

    #[test]
    fn each_device_of_a_user_counts_as_a_copy() {
        let round = Round::new(0, 0, 2, 3);
        for seq in [0, 0, 0, 1, 1] {
            round.record(seq);
        }
        assert_eq!(
            round.delivery_counts(2),
            DeliveryCounts { delivered: 5, lost: 1, duplicated: 0 }
        );
    }

    #[test]
    fn latency_counts_from_the_due_time() {
        let mut received = Received::of(Round::new(0, 0, 1, 1));
        received.event(Stamp { seq: 0, at: 1_000_000 }, 6_000_000, 0);
        assert!((5_000..5_010).contains(&received.latency.max()));
        assert_eq!(received.latency.len(), 1);
        assert!(received.catch_up.is_none());
    }

    #[test]
    fn missed_event_counts_from_the_reconnect() {
        let mut received = Received::of(Round::new(0, 0, 2, 1));
        // A missed event arrives 3 ms after the reconnect, a live one 2 ms after it was due.
        received.event(Stamp { seq: 0, at: 1_000_000 }, 9_000_000, 6_000_000);
        received.event(Stamp { seq: 1, at: 10_000_000 }, 12_000_000, 6_000_000);
        let catch_up = received.catch_up.unwrap();
        assert_eq!((catch_up.reachable.len(), catch_up.replayed.len()), (2, 1));
        assert!((3_000..3_010).contains(&catch_up.reachable.max()));
        assert!((3_000..3_010).contains(&catch_up.replayed.max()));
        assert!((8_000..8_010).contains(&received.latency.max()));
    }
}
