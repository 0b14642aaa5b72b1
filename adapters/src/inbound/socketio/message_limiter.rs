//! How many messages a device may send.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use crate::limits::{PerSecond, Rate};

/// A device that sends more than this many times its rate is disconnected. One that only flushes what it queued
/// while it was offline stays below this and has some messages rejected.
const FLOOD: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Limits the messages of one device.
#[derive(Debug)]
pub(super) struct MessageLimiter {
    limit: Option<PerSecond>,
    /// Made for the first message: most devices only receive.
    rates: OnceLock<Box<Rates>>,
}

#[derive(Debug)]
struct Rates {
    usual: Rate,
    flood: Rate,
}

/// Why a message is not processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    /// Above the rate: the message is rejected.
    Rate,
    /// Above [`FLOOD`] times the rate: the device is disconnected.
    Flood,
}

impl MessageLimiter {
    pub(super) fn new(limit: Option<PerSecond>) -> Self {
        Self { limit, rates: OnceLock::new() }
    }

    /// Counts one more message.
    pub(super) fn check(&self) -> Result<(), LimitExceeded> {
        let Some(limit) = self.limit else { return Ok(()) };
        let rates = self.rates.get_or_init(|| {
            Box::new(Rates { usual: Rate::of(limit), flood: Rate::times(limit, FLOOD) })
        });
        rates.flood.take().map_err(|_| LimitExceeded::Flood)?;
        rates.usual.take().map_err(|_| LimitExceeded::Rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_above_the_rate_are_refused_and_ten_times_above_it_are_a_flood() {
        let limiter = MessageLimiter::new(PerSecond::new(1));
        let outcomes: Vec<_> = (0..30).map(|_| limiter.check().err()).collect();
        assert!(outcomes[..2].iter().all(Option::is_none), "{outcomes:?}");
        assert!(
            outcomes[2..20].iter().all(|one| *one == Some(LimitExceeded::Rate)),
            "{outcomes:?}"
        );
        assert!(
            outcomes[20..].iter().all(|one| *one == Some(LimitExceeded::Flood)),
            "{outcomes:?}"
        );
    }

    #[test]
    fn device_that_only_receives_costs_next_to_nothing() {
        assert!(size_of::<MessageLimiter>() <= 24, "{}", size_of::<MessageLimiter>());
    }
}
