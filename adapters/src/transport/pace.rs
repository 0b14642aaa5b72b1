//! How quickly connections are accepted when many come at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Spreads those that come at once: what connections need in their first moment is done in turns with all
/// else, and thousands of them would be in front of each push to those who are connected. Whoever has to
/// wait does so in the kernel's backlog, for a quarter of a second where a thousand come.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    accepted: u32,
}

impl Pace {
    const AT_ONCE: u32 = 8;
    const TURN: Duration = Duration::from_millis(2);

    pub(super) fn new() -> Self {
        Self { since: Instant::now(), accepted: 0 }
    }

    /// To be waited for after each connection, before the next one is accepted.
    pub(super) async fn keep(&mut self) {
        if self.since.elapsed() >= Self::TURN {
            *self = Self::new();
        }
        self.accepted += 1;
        if self.accepted >= Self::AT_ONCE {
            sleep(Self::TURN).await;
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_that_come_at_once_are_spread_and_a_few_are_not_kept_waiting() {
        let begun = Instant::now();
        let mut pace = Pace::new();
        for _ in 0..Pace::AT_ONCE - 1 {
            pace.keep().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..1_000 {
            pace.keep().await;
        }
        let spread = Pace::TURN * (1_000 / Pace::AT_ONCE);
        assert!(begun.elapsed() >= spread, "{:?}", begun.elapsed());
        for _ in 0..100 {
            sleep(Pace::TURN).await;
            let before = Instant::now();
            pace.keep().await;
            assert_eq!(before.elapsed(), Duration::ZERO);
        }
    }
}
