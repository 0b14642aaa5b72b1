use std::time::Duration;

use tokio::time::Instant;

use super::NotSynced;
use crate::session::replay_turns::{ReplayTurns, SlowSlot, Turn};

/// Waits for a device that takes a page more slowly than it was sent.
pub(super) struct SlowReader<'a> {
    turns: &'a ReplayTurns,
    permit: Permit,
    started: Instant,
    /// For how long the device may read nothing.
    patience: Duration,
    /// How long its queue was at the last look.
    queued: usize,
    /// When it read something, as far as is known.
    last_read: Instant,
    pause: Duration,
}

/// Held for as long as the page is in flight.
enum Permit {
    Turn(Turn),
    Slow(#[expect(dead_code, reason = "held, not used")] SlowSlot),
    None,
}

impl<'a> SlowReader<'a> {
    /// Between two looks at the queue: short at first, as most devices have read by then; later seldom
    /// enough for hundreds of slow devices to cost nothing.
    const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
    const LONGEST_PAUSE: Duration = Duration::from_millis(100);

    pub(super) fn new(turns: &'a ReplayTurns, turn: Turn, patience: Duration) -> Self {
        let now = Instant::now();
        Self {
            turns,
            permit: Permit::Turn(turn),
            started: now,
            patience,
            queued: usize::MAX,
            last_read: now,
            pause: Self::SHORTEST_PAUSE,
        }
    }

    /// The device took something.
    pub(super) fn has_read(&mut self) {
        self.last_read = Instant::now();
    }

    /// Waits a little, with so much in the device's queue.
    pub(super) async fn wait(&mut self, queued: usize) -> Result<(), NotSynced> {
        if std::mem::replace(&mut self.queued, queued) > queued {
            self.has_read();
        }
        if self.last_read.elapsed() >= self.patience {
            return Err(NotSynced::Unsent);
        }
        if self.started.elapsed() >= self.turns.length() {
            self.give_turn_back()?;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        Ok(())
    }

    fn give_turn_back(&mut self) -> Result<(), NotSynced> {
        match std::mem::replace(&mut self.permit, Permit::None) {
            Permit::Turn(turn) => {
                let slot = self.turns.slow_down(turn).ok_or(NotSynced::Unsent)?;
                self.permit = Permit::Slow(slot);
            }
            slow => self.permit = slow,
        }
        Ok(())
    }
}
