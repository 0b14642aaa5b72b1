use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

/// The limits that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Sessions of one user.
    SessionsPerUser,
    /// Handshakes at this node.
    Handshakes,
    /// Handshakes from one address.
    HandshakesPerAddress,
    /// Messages of one socket.
    Messages,
    /// Requests of one caller.
    Requests,
    /// Requests of one service that writes.
    Writes,
    /// Work for one user.
    Work,
}

/// How often one limit is logged at most.
const EVERY: Duration = Duration::from_secs(1);

static LATELY: [Mutex<Lately>; 7] = [const { Mutex::new(Lately::NOTHING) }; 7];

impl Limit {
    /// The setting that it is set by, as metrics and logs name it.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::SessionsPerUser => "sessions_per_user",
            Self::Handshakes => "handshakes_per_second",
            Self::HandshakesPerAddress => "handshakes_per_address",
            Self::Messages => "messages_per_second",
            Self::Requests => "requests_per_second",
            Self::Writes => "writes_per_second",
            Self::Work => "work_per_user",
        }
    }

    /// Somebody was refused or sent away because of it: counted each time, and logged now and then, as
    /// those who exceed limits could fill the log otherwise.
    pub fn hit(self) {
        metrics::counter!("belfry_limits_hit_total", "limit" => self.setting()).increment(1);
        if let Some(times) = LATELY[self as usize].lock().hit(Instant::now()) {
            warn!(limit = self.setting(), times, "a limit was reached");
        }
    }
}

/// When a limit was logged, and how often it was hit since.
struct Lately {
    logged: Option<Instant>,
    since: u64,
}

impl Lately {
    const NOTHING: Self = Self { logged: None, since: 0 };

    /// How often it was hit since it was logged, if that is to be logged now.
    fn hit(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.logged.is_some_and(|then| now.duration_since(then) < EVERY) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_logged_once_a_second_with_how_often() {
        let start = Instant::now();
        let mut lately = Lately::NOTHING;
        let mut hit = |millis| lately.hit(start + Duration::from_millis(millis));
        assert_eq!([0, 1, 999].map(&mut hit), [Some(1), None, None]);
        assert_eq!([1_000, 1_001, 5_000].map(&mut hit), [Some(3), None, Some(2)]);
    }
}
