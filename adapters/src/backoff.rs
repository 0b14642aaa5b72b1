use std::time::Duration;

/// Exponential backoff with jitter: each delay is twice the one before, up to a maximum.
///
/// The jitter changes each delay by up to a quarter, so that nodes that lost the same server do not
/// reconnect at the same instant.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial }
    }

    /// The delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.next.min(self.max);
        self.next = delay.saturating_mul(2).min(self.max);
        delay.saturating_mul(fastrand::u32(75..=125)) / 100
    }

    /// To be called after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for expected in [100, 200, 400, 800, 1_000, 1_000] {
            let delay = backoff.next_delay().as_millis();
            let bounds = expected * 3 / 4..=expected * 5 / 4;
            assert!(bounds.contains(&delay), "{delay} is not about {expected}");
        }
        backoff.reset();
        assert!(backoff.next_delay() < Duration::from_millis(130));
    }
}
