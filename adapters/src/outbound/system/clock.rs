use std::time::{SystemTime, UNIX_EPOCH};

use belfry_application::ports::Clock;
use belfry_domain::Timestamp;

/// The system clock, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the implementation of the Clock port")]
    fn now(&self) -> Timestamp {
        let now = SystemTime::now();
        let millis =
            |distance: std::time::Duration| i64::try_from(distance.as_millis()).unwrap_or(i64::MAX);
        // A clock that was never set may be before 1970.
        Timestamp::from_unix_millis(match now.duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_after_2024() {
        let year_2025 = Timestamp::from_unix_millis(1_735_689_600_000);
        assert!(SystemClock.now() > year_2025);
    }
}
