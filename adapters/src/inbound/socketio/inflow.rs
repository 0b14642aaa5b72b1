//! How many messages a device may send, and how many packets that are none.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::limits::{Exceeded, PerSecond, Rate, RateByKey};
use crate::transport::is_event;

/// How many messages of one device may be under way at once.
const UNDER_WAY_AT_MOST: usize = 32;

/// How many times its rate a device may go on to send before it is disconnected: one that sends what
/// it had queued while it was away is told no, one that never stops costs more than that.
const FLOOD: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// How many packets a second are taken of one connection that are no events: pings, pongs, acknowledgements,
/// fragments. Nobody needs more than a few.
pub(super) const OTHER_PACKETS: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// The packets that sessions send by polling and that are no events.
pub(super) struct PolledPackets(RateByKey);

impl PolledPackets {
    pub(super) fn new() -> Self {
        Self(RateByKey::of(PerSecond::from(OTHER_PACKETS)))
    }

    /// Counts those in one request's body, where 0x1E separates packets, up to the first too many.
    pub(super) fn take(&self, sid: &str, body: &[u8]) -> Result<(), Exceeded> {
        let mut others = body.split(|byte| *byte == 0x1e).filter(|packet| !is_event(packet));
        others.try_for_each(|_| self.0.take(&sid))
    }
}

/// The messages of one device.
#[derive(Debug)]
pub(super) struct Inflow {
    under_way: AtomicUsize,
    rate: Option<PerSecond>,
    /// Made with the first message: most devices only listen.
    pace: OnceLock<Box<Pace>>,
}

#[derive(Debug)]
struct Pace {
    usual: Rate,
    flood: Rate,
}

/// Why a message is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// Too many are under way.
    UnderWay,
    /// They come faster than they may.
    Rate,
    /// They go on to come so much faster that the device is not to stay.
    Flood,
}

impl Inflow {
    pub(super) fn new(rate: Option<PerSecond>) -> Self {
        Self { under_way: AtomicUsize::new(0), rate, pace: OnceLock::new() }
    }

    /// One more message, which is under way for as long as what this gives is there.
    pub(super) fn enter(self: &Arc<Self>) -> Result<UnderWay, Excess> {
        if let Some(rate) = self.rate {
            self.pace.get_or_init(|| Box::new(Pace::of(rate))).take()?;
        }
        let entered = UnderWay(self.clone());
        let before = self.under_way.fetch_add(1, Ordering::AcqRel);
        if before < UNDER_WAY_AT_MOST { Ok(entered) } else { Err(Excess::UnderWay) }
    }
}

impl Pace {
    fn of(rate: PerSecond) -> Self {
        Self { usual: Rate::of(rate), flood: Rate::times(rate, FLOOD) }
    }

    fn take(&self) -> Result<(), Excess> {
        self.flood.take().map_err(|_| Excess::Flood)?;
        self.usual.take().map_err(|_| Excess::Rate)
    }
}

/// A message under way; counts itself out when it is done.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Inflow>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_past_the_rate_are_refused_and_past_ten_times_of_it_the_device() {
        let inflow = Arc::new(Inflow::new(PerSecond::new(1)));
        let outcomes: Vec<_> = (0..30).map(|_| inflow.enter().err()).collect();
        assert!(outcomes[..2].iter().all(Option::is_none), "{outcomes:?}");
        assert!(outcomes[2..20].iter().all(|one| *one == Some(Excess::Rate)), "{outcomes:?}");
        assert!(outcomes[20..].iter().all(|one| *one == Some(Excess::Flood)), "{outcomes:?}");
    }

    #[test]
    fn only_so_many_are_under_way_at_once() {
        let inflow = Arc::new(Inflow::new(None));
        let mut under_way: Vec<_> = (0..32).map(|_| inflow.enter().unwrap()).collect();
        assert_eq!(inflow.enter().unwrap_err(), Excess::UnderWay);
        under_way.pop();
        under_way.push(inflow.enter().unwrap());
        drop(under_way);
        assert_eq!(inflow.under_way.load(Ordering::Acquire), 0);
    }

    #[test]
    fn by_polling_no_more_than_so_many_packets_are_taken_that_are_no_events() {
        let packets = PolledPackets::new();
        let events = [r#"42["a"]"#; 1_000].join("\u{1e}");
        assert_eq!(packets.take("a", events.as_bytes()), Ok(()));
        let pongs = ["3"; 100].join("\u{1e}");
        let taken = [(); 5].map(|()| packets.take("a", pongs.as_bytes()).is_ok());
        assert_eq!(taken, [true, true, true, true, false]);
        assert_eq!(packets.take("b", pongs.as_bytes()), Ok(()), "that is another's");
    }

    #[test]
    fn a_device_that_only_listens_costs_next_to_nothing() {
        assert!(size_of::<Inflow>() <= 32, "{}", size_of::<Inflow>());
    }
}
