//! Disconnects devices when the keys of their tokens are withdrawn.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Sessions;
use crate::access::KeyWithdrawn;
use crate::ports::{CloseReason, Device, KeyFingerprint};

/// The accepted keys are compared with the previous ones at this interval.
const INTERVAL: Duration = Duration::from_secs(1);

impl<D: Device> Sessions<D> {
    /// Ends sessions whose key is not accepted any more, until `stop` is cancelled.
    pub async fn run_key_withdrawal(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut previous: Option<HashSet<KeyFingerprint>> = None;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let accepted = self.sign_in.accepted_keys();
            // Checking all sessions every second would be too expensive. They are checked at the start, and
            // when a key that was accepted before is missing.
            if previous.is_none_or(|previous| !previous.is_subset(&accepted)) {
                self.disconnect_all_but(&accepted).await;
            }
            previous = Some(accepted);
        }
    }

    /// Disconnects the sessions whose key is not one of `accepted`.
    pub(super) async fn disconnect_all_but(&self, accepted: &HashSet<KeyFingerprint>) {
        let mut sessions = self.rooms.all_sessions();
        sessions.retain(|session| !accepted.contains(&session.key()));
        if !sessions.is_empty() {
            info!(sessions = sessions.len(), "token keys withdrawn; disconnecting devices");
        }
        self.disconnect_all(&sessions, CloseReason::KeyWithdrawn, &KeyWithdrawn).await;
    }
}
