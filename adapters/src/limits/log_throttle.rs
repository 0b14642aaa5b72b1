use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Limits how often an event that clients cause is logged, so that they do not fill the log.
#[derive(Debug)]
pub(super) struct LogThrottle {
    /// The minimum time between two log lines.
    interval: Duration,
    last_logged: Option<Instant>,
    /// The number of events since the last log line.
    unlogged_events: u64,
}

impl LogThrottle {
    pub(super) const fn every(interval: Duration) -> Self {
        Self { interval, last_logged: None, unlogged_events: 0 }
    }

    /// Counts an event. Returns the number of events since the last log line, including this one; `None` if it is
    /// too early for another line.
    pub(super) fn record(&mut self, now: Instant) -> Option<u64> {
        self.unlogged_events += 1;
        if self.last_logged.is_some_and(|then| now.duration_since(then) < self.interval) {
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.unlogged_events))
    }

    #[cfg(test)]
    pub(super) fn has_logged(&self) -> bool {
        self.last_logged.is_some()
    }
}

/// Throttles one log line to one every ten seconds. For use in a `static`.
#[derive(Debug)]
pub(crate) struct ThrottledLog(Mutex<LogThrottle>);

impl ThrottledLog {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(LogThrottle::every(Duration::from_secs(10))))
    }

    /// Counts an event. Returns the number for the field `times` if the line may be logged now.
    pub(crate) fn record(&self) -> Option<u64> {
        self.0.lock().record(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_logged_once_in_an_interval_with_its_count() {
        let start = Instant::now();
        let mut throttle = LogThrottle::every(Duration::from_secs(1));
        let mut record = |millis| throttle.record(start + Duration::from_millis(millis));
        assert_eq!([0, 1, 999].map(&mut record), [Some(1), None, None]);
        assert_eq!([1_000, 1_001, 5_000].map(&mut record), [Some(3), None, Some(2)]);
    }
}
