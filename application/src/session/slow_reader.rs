use std::time::Duration;

use tokio::time::Instant;

use super::replay_limiter::{ReplayLimiter, ReplayPermit, SlowPermit};
use super::sync_error::SyncError;
use crate::Backoff;

/// Waits for a device to read a replay page, and gives up on a device that is stuck.
pub(super) struct SlowReader<'a> {
    limiter: &'a ReplayLimiter,
    permit: Permit,
    started: Instant,
    /// How long the device may read nothing.
    patience: Duration,
    /// The length of the send queue at the last look.
    queued: usize,
    /// When the device last read something, as far as known.
    last_read: Instant,
    pauses: Backoff,
}

/// Kept as long as the page is in flight.
enum Permit {
    Normal(ReplayPermit),
    Slow(#[expect(dead_code, reason = "kept for its drop")] SlowPermit),
    None,
}

impl<'a> SlowReader<'a> {
    /// The pause between two looks at the queue. It is short at first, because most devices have read
    /// by then. It doubles up to a length at which hundreds of slow devices cost nothing.
    const MIN_PAUSE: Duration = Duration::from_millis(2);
    const MAX_PAUSE: Duration = Duration::from_millis(100);

    pub(super) fn new(
        limiter: &'a ReplayLimiter,
        permit: ReplayPermit,
        patience: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            limiter,
            permit: Permit::Normal(permit),
            started: now,
            patience,
            queued: usize::MAX,
            last_read: now,
            pauses: Backoff::new(Self::MIN_PAUSE, Self::MAX_PAUSE),
        }
    }

    /// Call it when the device has read something.
    pub(super) fn record_read(&mut self) {
        self.last_read = Instant::now();
    }

    /// Waits a little. `queued` is the current length of the device's send queue. Fails if the device has
    /// read nothing for too long.
    pub(super) async fn wait(&mut self, queued: usize) -> Result<(), SyncError> {
        if std::mem::replace(&mut self.queued, queued) > queued {
            self.record_read();
        }
        if self.last_read.elapsed() >= self.patience {
            return Err(SyncError::SendFailed);
        }
        if self.started.elapsed() >= self.limiter.max_hold() {
            self.exchange_permit()?;
        }
        tokio::time::sleep(self.pauses.next_delay()).await;
        Ok(())
    }

    fn exchange_permit(&mut self) -> Result<(), SyncError> {
        match std::mem::replace(&mut self.permit, Permit::None) {
            Permit::Normal(permit) => {
                let slow = self.limiter.exchange(permit).ok_or(SyncError::SendFailed)?;
                self.permit = Permit::Slow(slow);
            }
            slow => self.permit = slow,
        }
        Ok(())
    }
}
