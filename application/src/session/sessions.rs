mod catch_up;
mod expiry;
mod key_withdrawal;
mod revocation;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use belfry_domain::{Timestamp, UserRoom};
use tracing::{debug, warn};

use super::admission::{
    Admission, ExcessPolicy, SessionLimit, SessionReservation, TooManySessions,
};
use super::deadlines::Deadlines;
use super::gate::Position;
use super::lagging_sessions::LaggingSessions;
use super::replay_limiter::{ReplayLimiter, ReplayLimits};
use super::rooms::Rooms;
use super::session::{DeliveryOutcome, Session, SessionId};
use crate::access::{Action, AuthError, KeyWithdrawn};
use crate::ports::{
    BearerToken, CatchUpCause, CatchUpMonitor, Claims, Clock, CloseReason, Device, SendError,
    WorkBudget,
};
use crate::push::{Push, PushBatch};
use crate::use_cases::{CatchUp, SignIn};

/// All sessions of this node.
pub struct Sessions<D: Device> {
    sign_in: SignIn,
    catch_up: CatchUp,
    work: Arc<dyn WorkBudget>,
    monitor: Arc<dyn CatchUpMonitor>,
    clock: Arc<dyn Clock>,
    settings: SessionSettings,
    rooms: Arc<Rooms<D>>,
    next_id: AtomicU64,
    deadlines: Deadlines<D>,
    lagging: LaggingSessions<D>,
    replay_limiter: ReplayLimiter,
}

/// The limits of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// A device is warned this long before its token expires.
    pub warn_before_expiry: Duration,
    /// The maximum number of live batches that are held back for a device that catches up.
    pub max_held: usize,
    /// A device that catches up is disconnected after it has read nothing for this long. A device that
    /// reads anything, however little, stays connected.
    pub patience: Duration,
    /// The session limit per user; `None` for no limit.
    pub limit: Option<SessionLimit>,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            warn_before_expiry: Duration::from_mins(1),
            max_held: 256,
            patience: Duration::from_secs(15),
            limit: None,
        }
    }
}

/// Records nothing. Used unless [`Sessions::monitored_by`] is called.
struct NoMonitor;

impl CatchUpMonitor for NoMonitor {
    fn record(&self, _: CatchUpCause, _: Duration) {}
}

impl<D: Device> Sessions<D> {
    /// A node without sessions.
    pub fn new(
        sign_in: SignIn,
        catch_up: CatchUp,
        work: Arc<dyn WorkBudget>,
        clock: Arc<dyn Clock>,
        settings: SessionSettings,
    ) -> Self {
        Self {
            sign_in,
            catch_up,
            work,
            monitor: Arc::new(NoMonitor),
            clock,
            settings,
            rooms: Arc::default(),
            next_id: AtomicU64::new(1),
            deadlines: Deadlines::default(),
            lagging: LaggingSessions::default(),
            replay_limiter: ReplayLimiter::new(ReplayLimits::DEFAULT),
        }
    }

    /// Reports to `monitor` how long devices take to catch up.
    #[must_use]
    pub fn monitored_by(self, monitor: Arc<dyn CatchUpMonitor>) -> Self {
        Self { monitor, ..self }
    }

    /// Authenticates a device. Its token must permit receiving the events of the user's inbox.
    pub async fn sign_in(&self, token: Option<BearerToken>) -> Result<Claims, AuthError> {
        let claims = self.sign_in.run(token).await?;
        self.sign_in.access().check(&claims, Action::ReadInbox)?;
        Ok(claims)
    }

    /// Checks the session limit of an authenticated user. With [`ExcessPolicy::RejectNewest`] this
    /// reserves a place for the session.
    pub fn admit(&self, claims: Claims) -> Result<Admission<D>, TooManySessions> {
        let reservation = match self.settings.limit {
            Some(SessionLimit { per_user, on_excess: ExcessPolicy::RejectNewest }) => {
                let room = UserRoom::of(claims.user.clone());
                Some(SessionReservation::new(self.rooms.clone(), room, per_user)?)
            }
            Some(SessionLimit { on_excess: ExcessPolicy::EvictOldest, .. }) | None => None,
        };
        Ok(Admission { claims, reservation })
    }

    /// Adds a device to its user's room. The session's gate holds live events back until
    /// [`start`](Self::start) has sent the missed changes.
    ///
    /// Call this before the connect is confirmed to the client. Then call [`prepare`](Self::prepare), confirm
    /// the connect, and call `start`. When the connection closes, call [`leave`](Self::leave).
    ///
    /// The session may already have ended when this returns, for example because its token was revoked. The
    /// device is then closed, although the connect was never confirmed to its client.
    pub fn join(&self, admission: Admission<D>, device: D) -> Arc<Session<D>> {
        let Admission { claims, reservation } = admission;
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let session = Arc::new(Session::new(id, claims, device, self.settings.max_held));
        for oldest in self.enter_room(session.clone(), reservation) {
            self.deadlines.cancel(&oldest);
            Self::close_with_exception(&oldest, CloseReason::TooManySessions, &TooManySessions);
        }
        self.schedule_expiry(&session);
        self.end_if_no_longer_accepted(&session);
        session
    }

    /// Ends the session if its token was revoked, or its key withdrawn, since the token was verified. A
    /// revocation or withdrawal ends the sessions that it finds in the rooms. It does not find a session that
    /// joins its room later, or that receives the claims of this token later.
    fn end_if_no_longer_accepted(&self, session: &Session<D>) {
        if session.is_revoked(self.sign_in.revoked()) {
            self.disconnect(session, CloseReason::TokenRevoked, &AuthError::TokenRevoked);
        } else if !self.sign_in.accepted_keys().contains(&session.key()) {
            self.disconnect(session, CloseReason::KeyWithdrawn, &KeyWithdrawn);
        }
    }

    /// Adds a session to its room and returns the sessions that were evicted for it.
    fn enter_room(
        &self,
        session: Arc<Session<D>>,
        reservation: Option<SessionReservation<D>>,
    ) -> Vec<Arc<Session<D>>> {
        match reservation {
            Some(reservation) => {
                reservation.occupy(session);
                Vec::new()
            }
            None => self.rooms.join(session, self.settings.limit.map(|limit| limit.per_user)),
        }
    }

    /// Ends the session of a closed connection. Calling it twice has no further effect.
    pub fn leave(&self, session: &Session<D>) {
        self.deadlines.cancel(session);
        if self.rooms.leave(session) {
            debug!(user = %session.user(), "device disconnected");
        }
    }

    /// Ends a session and closes its device. Before that, the device is sent an exception with the reason's
    /// code and `message`. Has no effect on a session that has ended.
    pub fn disconnect(&self, session: &Session<D>, why: CloseReason, message: &dyn fmt::Display) {
        self.deadlines.cancel(session);
        // The session leaves the room at once, because the transport may take long to close.
        if self.rooms.leave(session) {
            Self::close_with_exception(session, why, message);
        }
    }

    /// Disconnects these sessions. There may be thousands, so other tasks may run after every 64 of them.
    async fn disconnect_all(
        &self,
        sessions: &[Arc<Session<D>>],
        why: CloseReason,
        message: &(dyn fmt::Display + Sync),
    ) {
        for chunk in sessions.chunks(64) {
            for session in chunk {
                self.disconnect(session, why, message);
            }
            tokio::task::yield_now().await;
        }
    }

    fn close_with_exception(session: &Session<D>, why: CloseReason, message: &dyn fmt::Display) {
        debug!(user = %session.user(), reason = why.as_str(), "disconnecting device");
        // A device with a full send queue does not receive the exception, only the close.
        let _ = session.send(&Push::Exception { code: why.as_str(), message: message.to_string() });
        session.device().close(why);
    }

    /// Disconnects a device whose send queue is full. It can reconnect and catch up.
    pub fn disconnect_slow_consumer(session: &Session<D>) {
        warn!(user = %session.user(), "slow consumer: send queue full; disconnecting device");
        session.device().close(CloseReason::TooSlow);
    }

    /// Checks that the session's token is still valid and permits the action. Call it before each message of
    /// a device is handled.
    pub fn authorize(&self, session: &Session<D>, action: Action) -> Result<(), AuthError> {
        session.authorize(self.clock.now(), self.sign_in.access(), action)
    }

    /// Continues a session with a newer token of the same user. Returns the new expiry.
    pub async fn refresh(
        &self,
        session: &Arc<Session<D>>,
        token: Option<BearerToken>,
    ) -> Result<Timestamp, AuthError> {
        let claims = self.sign_in(token).await?;
        let expires_at = session.renew(claims)?;
        self.schedule_expiry(session);
        self.end_if_no_longer_accepted(session);
        Ok(expires_at)
    }

    /// Delivers a batch to all devices in the room and returns the number of devices that received or
    /// will receive it. Encodes nothing for an empty room. A device with a full send queue is
    /// disconnected. A device that has missed an event catches up
    /// ([`catch_up_lagging`](Self::catch_up_lagging)).
    pub fn deliver(&self, room: &UserRoom, batch: &PushBatch) -> usize {
        let sessions = self.rooms.sessions_in(room);
        if sessions.is_empty() {
            return 0;
        }
        let frames: Arc<[D::Frame]> = batch.pushes.iter().map(D::frame).collect();
        let position = Position::of(batch);
        let mut delivered = 0;
        for session in sessions {
            match session.deliver(position, &frames) {
                DeliveryOutcome::Delivered => delivered += 1,
                DeliveryOutcome::Lagging(last_delivered) => {
                    self.mark_lagging(&session, last_delivered);
                }
                DeliveryOutcome::Failed(SendError::Full) => {
                    Self::disconnect_slow_consumer(&session);
                }
                // The transport is about to call `leave`.
                DeliveryOutcome::Failed(SendError::Closed) => {}
            }
        }
        delivered
    }

    /// Closes all devices so that they reconnect to other nodes. Spreads this over `spread`, so that they
    /// do not reconnect all at once.
    pub async fn drain(&self, spread: Duration) {
        let all = self.rooms.all_sessions();
        let interval = spread.checked_div(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let begin = tokio::time::Instant::now();
        for (n, session) in (0_u32..).zip(&all) {
            // Timers have a resolution of one millisecond. If the interval is shorter, several devices are
            // closed without a sleep in between.
            if let Some(due) = interval.map(|interval| begin + interval * n)
                && due > tokio::time::Instant::now() + Duration::from_millis(1)
            {
                tokio::time::sleep_until(due).await;
            }
            session.device().close(CloseReason::ShuttingDown);
        }
    }

    /// The number of sessions.
    pub fn count(&self) -> usize {
        self.rooms.session_count()
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
