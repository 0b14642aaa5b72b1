//! Warns devices before their tokens expire, and disconnects them when the tokens have expired.

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
    /// The interval between two checks, which is the precision of expiry.
    const TICK: Duration = Duration::from_millis(50);

    /// Warns devices and ends sessions with expired tokens, until `stop` is cancelled.
    pub async fn run_expiry(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Self::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.close_expired();
        }
    }

    /// Ends the sessions whose tokens have expired, and sends the warnings that are due.
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

    /// Schedules the warning or, after the warning, the expiry of the session. If the usual warning time has
    /// passed already, the warning is scheduled halfway between now and the expiry. A device whose tokens are
    /// all short-lived then has time to send a new one, and is not warned right after each refresh.
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
