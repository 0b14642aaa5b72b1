use std::num::NonZeroU32;
use std::sync::OnceLock;

use crate::limits::{PerSecond, Rate};

/// A device that sends more than this many times its rate is disconnected. A device that was offline may send all its
/// queued messages at once: that stays below this factor, so only some of the messages are rejected.
const FLOOD: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Limits the messages of one device.
#[derive(Debug)]
pub(super) struct MessageLimiter {
    limit: Option<PerSecond>,
    /// Created with the first message, because most devices only receive.
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
            Box::new(Rates { usual: Rate::of(limit), flood: Rate::multiplied(limit, FLOOD) })
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
        let errors: Vec<_> = (0..30).map(|_| limiter.check().err()).collect();
        // The burst is twice the rate: 2 messages, and 20 until the flood.
        assert!(errors[..2].iter().all(Option::is_none), "{errors:?}");
        assert!(
            errors[2..20].iter().all(|error| *error == Some(LimitExceeded::Rate)),
            "{errors:?}"
        );
        assert!(
            errors[20..].iter().all(|error| *error == Some(LimitExceeded::Flood)),
            "{errors:?}"
        );
    }

    #[test]
    fn unused_limiter_is_small() {
        assert!(size_of::<MessageLimiter>() <= 24, "{}", size_of::<MessageLimiter>());
    }
}
