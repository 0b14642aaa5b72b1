//! Warns devices before their tokens expire, and disconnects them when they do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Sessions;
use crate::access::AuthError;
use crate::ports::{CloseReason, Device};
use crate::push::Push;
use crate::session::session::Session;

impl<D: Device> Sessions<D> {
    /// The precision of expiry.
    const TICK: Duration = Duration::from_millis(50);

    /// Ends sessions with expired tokens, and warns devices before, until `stop`.
    pub async fn run_expiry(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Self::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.close_expired();
        }
    }

    pub(super) fn close_expired(&self) {
        let now = self.clock.now();
        for session in self.deadlines.take_due(now) {
            let expires_at = session.expires_at();
            if expires_at <= now {
                self.disconnect(&session, CloseReason::TokenExpired, &AuthError::TokenExpired);
                continue;
            }
            if expires_at.minus(self.settings.warn_before_expiry) <= now && session.warn_once() {
                // A device with a full send queue misses the warning.
                let _ = session.send(&Push::Expiring { expires_at });
            }
            self.schedule_expiry(&session);
        }
    }

    /// Schedules the warning or, after the warning, the expiry of the session. A token that expires
    /// sooner than the usual warning time is warned of halfway. The device then has time to send a new
    /// token, and is not warned all the time where every token is short-lived.
    pub(super) fn schedule_expiry(&self, session: &Arc<Session<D>>) {
        let now = self.clock.now();
        let expires_at = session.expires_at();
        let warn_at = expires_at.minus(self.settings.warn_before_expiry);
        let at = if session.is_warned() {
            expires_at
        } else if warn_at > now {
            warn_at
        } else {
            now.plus(expires_at.since(now) / 2)
        };
        self.deadlines.schedule(session, at);
    }
}
