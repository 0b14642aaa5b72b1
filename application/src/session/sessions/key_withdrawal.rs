//! Disconnects devices when the keys of their tokens are withdrawn.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Sessions;
use crate::access::KeyWithdrawn;
use crate::ports::{CloseReason, Device, KeyFingerprint};

/// How often the accepted keys are compared with the previous ones.
const INTERVAL: Duration = Duration::from_secs(1);

impl<D: Device> Sessions<D> {
    /// Ends sessions whose key is not accepted any more, until `stop`.
    pub async fn run_key_withdrawal(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = None;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let accepted = self.sign_in.accepted_keys();
            // Checking all sessions every second would be too expensive, so it is done only if a key is missing,
            // and once at start.
            let withdrawn =
                known.is_none_or(|known: HashSet<KeyFingerprint>| !known.is_subset(&accepted));
            if withdrawn {
                self.disconnect_all_but(&accepted).await;
            }
            known = Some(accepted);
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
