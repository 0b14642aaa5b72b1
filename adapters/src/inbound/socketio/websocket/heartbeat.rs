use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use socketioxide::socket::Sid;
use tokio::time::Instant;

/// Engine.IO's heartbeat: the server pings, the client answers in time.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    /// When the last ping went out, while it is not answered.
    pinged: Option<Instant>,
    due: Instant,
}

/// What is to be done when it is time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing yet.
    Wait,
    Ping,
    /// The client has not answered.
    Dead,
}

impl Heartbeat {
    /// The first ping comes at a time of the session's own within the interval: of all those that come in
    /// at the same moment, as after a restart, none are pinged at the same moment ever after.
    pub(super) fn begin(sid: Sid, interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, pinged: None, due: now + share_of(interval, sid) }
    }

    /// When it is time.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        if now < self.due {
            return Beat::Wait;
        }
        if self.pinged.is_some() {
            return Beat::Dead;
        }
        self.pinged = Some(now);
        self.due = now + self.timeout;
        Beat::Ping
    }

    /// The client has shown that it is there.
    pub(super) fn heard(&mut self) {
        if let Some(pinged) = self.pinged.take() {
            self.due = pinged + self.interval;
        }
    }
}

/// A session's id is random, and so is what is made of it.
fn share_of(interval: Duration, sid: Sid) -> Duration {
    let mut hasher = DefaultHasher::new();
    sid.hash(&mut hasher);
    let most = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(hasher.finish().checked_rem(most).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn who_answers_is_pinged_again_after_the_interval() {
        let mut heartbeat = Heartbeat::begin(Sid::new(), INTERVAL, TIMEOUT, Instant::now());
        let first = heartbeat.due();
        assert_eq!(heartbeat.beat(first - Duration::from_millis(1)), Beat::Wait);
        assert_eq!(heartbeat.beat(first), Beat::Ping);
        assert_eq!(heartbeat.due(), first + TIMEOUT);
        heartbeat.heard();
        assert_eq!(heartbeat.due(), first + INTERVAL);
        // A second answer is to nothing.
        heartbeat.heard();
        assert_eq!(heartbeat.due(), first + INTERVAL);
        assert_eq!(heartbeat.beat(first + INTERVAL), Beat::Ping);
    }

    #[test]
    fn who_does_not_answer_is_dead() {
        let mut heartbeat = Heartbeat::begin(Sid::new(), INTERVAL, TIMEOUT, Instant::now());
        // Heard before it was asked, which answers nothing.
        heartbeat.heard();
        let first = heartbeat.due();
        assert_eq!(heartbeat.beat(first), Beat::Ping);
        assert_eq!(heartbeat.beat(first + TIMEOUT), Beat::Dead);
    }

    #[test]
    fn the_first_pings_of_many_are_spread_over_the_interval() {
        let mut tenths = [0_u32; 10];
        for _ in 0..1_000 {
            let share = share_of(INTERVAL, Sid::new());
            assert!(share < INTERVAL);
            tenths[usize::try_from(share.as_millis() / 2_500).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| *count > 30), "{tenths:?}");
        assert_eq!(share_of(Duration::ZERO, Sid::new()), Duration::ZERO);
    }
}
