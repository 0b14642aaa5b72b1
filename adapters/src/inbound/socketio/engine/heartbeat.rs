use std::time::Duration;

use tokio::time::Instant;

/// Engine.IO's heartbeat: the server sends pings, and the client must answer in time.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    /// When the last ping was sent; `None` once it is answered.
    pinged: Option<Instant>,
    due: Instant,
}

/// The action that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Wait,
    Ping,
    /// The client did not answer in time.
    TimedOut,
}

impl Heartbeat {
    /// The first ping is due at a random time within the interval. Otherwise clients that connect at the same time,
    /// as after a restart, would always be pinged at the same time.
    pub(super) fn start(interval: Duration, timeout: Duration, now: Instant) -> Self {
        // Not immediately, because a session is busy when it starts.
        let share = 0.1 + 0.9 * fastrand::f64();
        Self { interval, timeout, pinged: None, due: now + interval.mul_f64(share) }
    }

    /// When [`beat`](Self::beat) must be called.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        if now < self.due {
            return Beat::Wait;
        }
        if self.pinged.is_some() {
            return Beat::TimedOut;
        }
        self.pinged = Some(now);
        self.due = now + self.timeout;
        Beat::Ping
    }

    /// Restarts the time to answer the last ping.
    pub(super) fn extend(&mut self, now: Instant) {
        self.due = now + self.timeout;
    }

    /// The client answered a ping.
    pub(super) fn answered(&mut self) {
        if let Some(pinged) = self.pinged.take() {
            self.due = pinged + self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn client_that_answers_is_pinged_again_after_the_interval() {
        let mut heartbeat = Heartbeat::start(INTERVAL, TIMEOUT, Instant::now());
        let first = heartbeat.due();
        assert_eq!(heartbeat.beat(first - Duration::from_millis(1)), Beat::Wait);
        assert_eq!(heartbeat.beat(first), Beat::Ping);
        assert_eq!(heartbeat.due(), first + TIMEOUT);
        heartbeat.answered();
        assert_eq!(heartbeat.due(), first + INTERVAL);
        // A second answer has no effect.
        heartbeat.answered();
        assert_eq!(heartbeat.due(), first + INTERVAL);
        assert_eq!(heartbeat.beat(first + INTERVAL), Beat::Ping);
    }

    #[test]
    fn client_that_does_not_answer_times_out() {
        let mut heartbeat = Heartbeat::start(INTERVAL, TIMEOUT, Instant::now());
        // Before the first ping, an answer has no effect.
        heartbeat.answered();
        let first = heartbeat.due();
        assert_eq!(heartbeat.beat(first), Beat::Ping);
        assert_eq!(heartbeat.beat(first + TIMEOUT), Beat::TimedOut);
        heartbeat.extend(first + TIMEOUT);
        assert_eq!(heartbeat.beat(first + TIMEOUT), Beat::Wait);
        assert_eq!(heartbeat.beat(first + 2 * TIMEOUT), Beat::TimedOut);
    }

    #[test]
    fn first_pings_are_spread_over_the_interval() {
        let now = Instant::now();
        let due: Vec<_> =
            (0..1_000).map(|_| Heartbeat::start(INTERVAL, TIMEOUT, now).due() - now).collect();
        assert!(due.iter().all(|due| *due <= INTERVAL && *due >= INTERVAL / 10));
        assert!(
            due.iter().any(|due| *due < INTERVAL / 3)
                && due.iter().any(|due| *due > INTERVAL * 2 / 3)
        );
    }
}
