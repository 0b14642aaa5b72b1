use std::time::Duration;

use super::random;

/// Pauses between attempts: each twice as long as the one before, up to a bound, and each spread by
/// a quarter so that many nodes that lost the same broker do not come back in the same instant.
#[derive(Debug, Clone)]
pub(crate) struct Pauses {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    pub(crate) fn between(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The pause to make now.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2).min(self.longest);
        // 75 to 124 hundredths.
        let hundredths = 75 + u32::try_from(random() % 50).unwrap_or_default();
        pause.saturating_mul(hundredths) / 100
    }

    /// It works again: the next pause is a short one.
    pub(crate) fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_bound_and_are_spread() {
        let mut pauses = Pauses::between(Duration::from_millis(100), Duration::from_secs(1));
        for expected in [100, 200, 400, 800, 1_000, 1_000] {
            let pause = pauses.next().as_millis();
            let bounds = expected * 3 / 4..=expected * 5 / 4;
            assert!(bounds.contains(&pause), "{pause} is not about {expected}");
        }
        pauses.reset();
        assert!(pauses.next() < Duration::from_millis(130));
    }
}
