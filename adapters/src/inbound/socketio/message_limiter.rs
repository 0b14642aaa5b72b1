use std::num::NonZeroU32;
use std::sync::OnceLock;

use crate::limits::{PerSecond, Rate};

/// A device that sends more than this many times its rate is disconnected. A device that sends the messages that it
/// queued while offline stays below this; some of its messages are rejected.
const FLOOD: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Limits the messages of one device.
#[derive(Debug)]
pub(super) struct MessageLimiter {
    limit: Option<PerSecond>,
    /// Created for the first message: most devices only receive.
    rates: OnceLock<Box<Rates>>,
}

#[derive(Debug)]
struct Rates {
    usual: Rate,
    flood: Rate,
}

/// The limit that a message exceeds.
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

    /// Counts one message.
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
    fn messages_above_the_rate_are_rejected_and_above_ten_times_the_rate_are_a_flood() {
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
    fn unused_limiter_is_small() {
        assert!(size_of::<MessageLimiter>() <= 24, "{}", size_of::<MessageLimiter>());
    }
}
