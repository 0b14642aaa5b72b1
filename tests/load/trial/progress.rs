//! The progress of deliveries.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Trial;
use crate::tally::Round;

/// Time without deliveries after which missing events count as lost: longer than Belfry's first two retry delays.
const LOSS_TIMEOUT: Duration = Duration::from_secs(10);

impl Trial<'_> {
    /// Waits until `expected` copies have arrived, or no more arrive. Returns the time of the last one.
    pub(crate) async fn wait_for_events(&self, round: &Round, expected: u64) -> Instant {
        let mut progress = Progress::of(round);
        while progress.update() < expected && !progress.has_stopped() {
            sleep(Duration::from_millis(10)).await;
        }
        // The unread count follows the last event, and a duplicate may follow even later.
        sleep(Duration::from_millis(200)).await;
        progress.last.1
    }
}

/// Tracks the deliveries of a round.
pub(super) struct Progress<'a> {
    round: &'a Round,
    /// The number of received copies, and the time of its last increase.
    last: (u64, Instant),
}

impl<'a> Progress<'a> {
    pub(super) fn of(round: &'a Round) -> Self {
        Self { round, last: (round.arrived(), Instant::now()) }
    }

    /// The current number of received copies.
    pub(super) fn update(&mut self) -> u64 {
        let arrived = self.round.arrived();
        if arrived > self.last.0 {
            self.last = (arrived, Instant::now());
        }
        arrived
    }

    /// True if no event has arrived for [`LOSS_TIMEOUT`].
    pub(super) fn has_stopped(&self) -> bool {
        self.last.1.elapsed() >= LOSS_TIMEOUT
    }
}
