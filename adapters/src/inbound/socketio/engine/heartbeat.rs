use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The times at which the sessions of one server are pinged. Time is divided into slots of equal length. All sessions
/// whose next ping falls into one slot are pinged at its end, so that they share a wake-up for the timer. Their clients
/// answer at nearly the same time, so the answers share wake-ups as well.
#[derive(Debug)]
pub(super) struct HeartbeatSchedule {
    interval: Duration,
    timeout: Duration,
    /// The start of the first slot.
    origin: Instant,
    slot: Duration,
}

impl HeartbeatSchedule {
    /// Long enough for a slot to have many sessions, and short enough that its pings delay nothing noticeably:
    /// 100,000 sessions with an interval of 25 seconds have 400 in a slot, a few milliseconds of work.
    const MAX_SLOT: Duration = Duration::from_millis(100);
    /// The precision of Tokio's timers.
    const MIN_SLOT: Duration = Duration::from_millis(1);

    pub(super) fn new(interval: Duration, timeout: Duration) -> Arc<Self> {
        // An interval has 250 slots, unless their length is at a limit.
        let slot = (interval / 250).clamp(Self::MIN_SLOT, Self::MAX_SLOT);
        Arc::new(Self { interval, timeout, origin: Instant::now(), slot })
    }

    /// The time from the start of the slot that contains `at` until `at`. Zero if `at` is the boundary of two slots.
    fn offset_in_slot(&self, at: Instant) -> Duration {
        let since = at.saturating_duration_since(self.origin);
        let nanos = since.as_nanos() % self.slot.as_nanos();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }

    fn start_of_slot(&self, at: Instant) -> Instant {
        at.checked_sub(self.offset_in_slot(at)).unwrap_or(at)
    }

    /// The end of the slot that contains `at`; `at` itself if it is the boundary of two slots.
    fn end_of_slot(&self, at: Instant) -> Instant {
        match self.offset_in_slot(at) {
            Duration::ZERO => at,
            offset => at + self.slot.saturating_sub(offset),
        }
    }
}

/// Engine.IO's heartbeat of one session: the server sends pings, and the client must answer in time.
#[derive(Debug)]
pub(super) struct Heartbeat {
    schedule: Arc<HeartbeatSchedule>,
    /// The start of the slot in which the last ping was sent; `None` once the client has answered that ping.
    pinged: Option<Instant>,
    /// When the next ping must be sent; while a ping is not answered, when it times out.
    due: Instant,
}

/// What the session must do now.
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
    pub(super) fn start(schedule: Arc<HeartbeatSchedule>, now: Instant) -> Self {
        // Not immediately, because a session is busy when it starts.
        let share = 0.1 + 0.9 * fastrand::f64();
        let due = schedule.end_of_slot(now + schedule.interval.mul_f64(share));
        Self { schedule, pinged: None, due }
    }

    /// When [`beat`](Self::beat) must be called.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Returns what the session must do at `now`. For a ping, it also starts the time in which the client must answer.
    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        if now < self.due {
            return Beat::Wait;
        }
        if self.pinged.is_some() {
            return Beat::TimedOut;
        }
        self.pinged = Some(self.schedule.start_of_slot(now));
        self.extend(now);
        Beat::Ping
    }

    /// Restarts the time in which the client must answer the last ping.
    pub(super) fn extend(&mut self, now: Instant) {
        self.due = self.schedule.end_of_slot(now + self.schedule.timeout);
    }

    /// Records that the client answered, and schedules the next ping.
    pub(super) fn answered(&mut self) {
        if let Some(pinged) = self.pinged.take() {
            self.due = self.schedule.end_of_slot(pinged + self.schedule.interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(20);

    fn start() -> Heartbeat {
        Heartbeat::start(HeartbeatSchedule::new(INTERVAL, TIMEOUT), Instant::now())
    }

    #[test]
    fn client_that_answers_is_pinged_again_after_the_interval() {
        let mut heartbeat = start();
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
        let mut heartbeat = start();
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
        let schedule = HeartbeatSchedule::new(INTERVAL, TIMEOUT);
        let now = Instant::now();
        let first = || Heartbeat::start(schedule.clone(), now).due() - now;
        let due: Vec<_> = (0..1_000).map(|_| first()).collect();
        assert!(due.iter().all(|due| *due <= INTERVAL + schedule.slot && *due >= INTERVAL / 10));
        assert!(
            due.iter().any(|due| *due < INTERVAL / 3)
                && due.iter().any(|due| *due > INTERVAL * 2 / 3)
        );
    }

    #[test]
    fn pings_are_due_only_at_the_ends_of_slots() {
        let schedule = HeartbeatSchedule::new(INTERVAL, TIMEOUT);
        let is_end = |at: Instant| schedule.offset_in_slot(at) == Duration::ZERO;
        for n in 0..100 {
            let late = Duration::from_micros(n * 997);
            let mut heartbeat =
                Heartbeat::start(schedule.clone(), schedule.origin + Duration::from_micros(n));
            assert!(is_end(heartbeat.due()));
            let first = heartbeat.due();
            assert_eq!(heartbeat.beat(first + late), Beat::Ping);
            assert!(is_end(heartbeat.due()) && heartbeat.due() >= first + late + TIMEOUT);
            heartbeat.answered();
            // A ping that is a little late does not move the next one to a later slot.
            assert_eq!(heartbeat.due(), first + INTERVAL);
        }
    }

    #[test]
    fn slot_is_short_compared_with_the_interval() {
        let slot = |millis| HeartbeatSchedule::new(Duration::from_millis(millis), TIMEOUT).slot;
        assert_eq!(slot(1), Duration::from_millis(1));
        assert_eq!(slot(1_000), Duration::from_millis(4));
        assert_eq!(slot(25_000), Duration::from_millis(100));
        assert_eq!(slot(300_000), Duration::from_millis(100));
    }
}
