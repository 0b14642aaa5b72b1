use std::time::Duration;

use tokio::time::Instant;

use super::replay_limiter::{ReplayLimiter, ReplayPermit, SlowPermit};
use super::sync_error::SyncError;
use crate::Backoff;

/// Waits for a device to read a replay page. Fails for a device that is stuck.
///
/// A device has read something when its send queue has become shorter or accepts a frame. A page in flight
/// needs a permit. If the device has not read the page after [`ReplayLimiter::permit_timeout`], its permit is
/// exchanged for a [`SlowPermit`].
pub(super) struct SlowReader<'a> {
    limiter: &'a ReplayLimiter,
    permit: Permit,
    /// When the sending of the page began.
    started: Instant,
    /// The device counts as stuck after it has read nothing for this long.
    patience: Duration,
    /// The length of the send queue at the last check.
    queued: usize,
    /// When the device was last seen to have read something.
    last_read: Instant,
    /// The pauses between two checks.
    pauses: Backoff,
}

/// The permit for the page in flight.
enum Permit {
    Normal(ReplayPermit),
    Slow(#[expect(dead_code, reason = "kept for its drop")] SlowPermit),
    /// Only during the exchange, or after it failed.
    None,
}

impl<'a> SlowReader<'a> {
    /// The first pause between two checks of the queue. It is short, because most devices have read the page
    /// by then. Each later pause is twice as long, up to `MAX_PAUSE`.
    const MIN_PAUSE: Duration = Duration::from_millis(2);
    /// Long enough that hundreds of slow devices cost little CPU time.
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

    /// Records that the device has read something. Call this when its send queue has accepted a frame.
    pub(super) fn record_read(&mut self) {
        self.last_read = Instant::now();
    }

    /// Pauses before the caller checks the send queue again. `queued` is the current length of that queue.
    /// Fails if the device has read nothing for `patience`, or is slow and no [`SlowPermit`] is free.
    pub(super) async fn wait(&mut self, queued: usize) -> Result<(), SyncError> {
        if std::mem::replace(&mut self.queued, queued) > queued {
            self.record_read();
        }
        if self.last_read.elapsed() >= self.patience {
            return Err(SyncError::SendFailed);
        }
        if self.started.elapsed() >= self.limiter.permit_timeout() {
            self.exchange_permit()?;
        }
        tokio::time::sleep(self.pauses.next_delay()).await;
        Ok(())
    }

    /// Exchanges a normal permit for a [`SlowPermit`]. Has no effect if the permit was exchanged before.
    fn exchange_permit(&mut self) -> Result<(), SyncError> {
        match std::mem::replace(&mut self.permit, Permit::None) {
            Permit::Normal(permit) => {
                let slow = self.limiter.exchange(permit).ok_or(SyncError::SendFailed)?;
                self.permit = Permit::Slow(slow);
            }
            exchanged => self.permit = exchanged,
        }
        Ok(())
    }
}
