//! Sessions end with their tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Sessions;
use crate::ports::{CloseReason, Device};
use crate::push::Push;
use crate::session::Session;
use crate::use_cases::Refusal;

impl<D: Device> Sessions<D> {
    /// How exactly expiry is kept.
    const TICK: Duration = Duration::from_millis(50);

    /// Ends sessions with their tokens, and warns before, until told to stop.
    pub async fn run_expiry(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Self::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.close_expired();
        }
    }

    pub(super) fn close_expired(&self) {
        let now = self.clock.now();
        for session in self.deadlines.due(now) {
            let expires_at = session.expires_at();
            if expires_at <= now {
                self.end(&session, CloseReason::TokenExpired, &Refusal::TokenExpired);
                continue;
            }
            if expires_at.minus(self.settings.warn_before_expiry) <= now && session.warn_once() {
                // A device that is too slow to hear it hears the end.
                let _ = session.say(&Push::Expiring { expires_at });
            }
            self.schedule_expiry(&session);
        }
    }

    /// Sees to it that the session is looked at when its token is about to end, and when it does. A
    /// device whose token holds for less than the usual warning time is warned half-way: in time to
    /// show another, and not again and again where tokens never hold for longer.
    pub(super) fn schedule_expiry(&self, session: &Arc<Session<D>>) {
        let now = self.clock.now();
        let expires_at = session.expires_at();
        let warn_at = expires_at.minus(self.settings.warn_before_expiry);
        let due = if session.is_warned() {
            expires_at
        } else if warn_at > now {
            warn_at
        } else {
            now.plus(expires_at.since(now) / 2)
        };
        self.deadlines.set(session, due);
    }
}
