use std::time::Duration;

/// Exponential backoff with jitter: each delay is twice the one before, up to a maximum.
///
/// The jitter shortens each delay by up to a quarter, so that nodes that lost the same server do not
/// reconnect at the same instant. No delay is longer than the maximum.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    /// The next delay without jitter.
    next: Duration,
    /// The part of a delay that is random: 0 for none, 1 for all.
    jitter: f64,
}

impl Backoff {
    /// Delays from `initial` to `max`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial, jitter: 0.25 }
    }

    /// Full jitter: each delay is random, between zero and the delay without jitter. For concurrent attempts
    /// that collide again if their delays are similar.
    #[must_use]
    pub const fn with_full_jitter(self) -> Self {
        Self { jitter: 1.0, ..self }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next.min(self.max);
        self.next = delay.saturating_mul(2).min(self.max);
        delay.mul_f64(1.0 - self.jitter * fastrand::f64())
    }

    /// Starts again from the initial delay. To be called after a success.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_maximum_with_jitter() {
        let mut backoff = Backoff::new(INITIAL, MAX);
        for limit in [100, 200, 400, 800, 1_000, 1_000] {
            let delay = backoff.next_delay().as_millis();
            let expected = limit * 3 / 4..=limit;
            assert!(expected.contains(&delay), "{delay} ms is not in {expected:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= INITIAL);
    }

    #[test]
    fn full_jitter_spreads_delays_over_the_whole_range() {
        let mut backoff = Backoff::new(MAX, MAX).with_full_jitter();
        let delays: Vec<_> = (0..1_000).map(|_| backoff.next_delay()).collect();
        assert!(delays.iter().all(|delay| *delay <= MAX));
        assert!(delays.iter().any(|delay| *delay < MAX / 10));
        assert!(delays.iter().any(|delay| *delay > MAX * 9 / 10));
    }

    #[test]
    fn maximum_below_the_initial_delay_applies_to_the_first_delay() {
        assert!(Backoff::new(MAX, INITIAL).next_delay() <= INITIAL);
    }
}
