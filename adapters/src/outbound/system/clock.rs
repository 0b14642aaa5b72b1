use std::time::{SystemTime, UNIX_EPOCH};

use belfry_application::ports::Clock;
use belfry_domain::Timestamp;

/// The machine's clock, to the millisecond.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the Clock port gets its time from"
    )]
    fn now(&self) -> Timestamp {
        let now = SystemTime::now();
        let millis =
            |distance: std::time::Duration| i64::try_from(distance.as_millis()).unwrap_or(i64::MAX);
        // A machine whose clock was never set may believe to live before 1970.
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
    fn it_tells_todays_time() {
        let year_2025 = Timestamp::from_unix_millis(1_735_689_600_000);
        assert!(SystemClock.now() > year_2025);
    }
}
