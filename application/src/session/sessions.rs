mod admission;
mod catching_up;
mod expiry;
mod revocation;
mod slow_reader;

pub use self::admission::{Admission, ExcessPolicy, SessionLimit, TooManySessions};
pub use self::catching_up::NotSynced;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use belfry_domain::{Timestamp, UserRoom};
use tracing::{debug, warn};

use self::catching_up::LaggingSessions;
use super::deadlines::Deadlines;
use super::replay_turns::{ReplayTurns, TurnLimits};
use super::rooms::Rooms;
use super::session::{DeliveryOutcome, Session, SessionId};
use crate::access::Action;
use crate::ports::{BearerToken, Claims, Clock, CloseReason, Device, SendError};
use crate::push::{Push, PushBatch};
use crate::use_cases::{CatchUp, Refusal, SignIn};

/// All devices that are signed in on this node.
pub struct Sessions<D: Device> {
    sign_in: SignIn,
    catch_up: CatchUp,
    clock: Arc<dyn Clock>,
    settings: SessionSettings,
    rooms: Arc<Rooms<D>>,
    next_id: AtomicU64,
    deadlines: Deadlines<D>,
    behind: LaggingSessions<D>,
    turns: ReplayTurns,
}

/// How sessions are run.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// How long before its end a device is told that its token ends.
    pub warn_before_expiry: Duration,
    /// How many announcements are held back for a device that catches up.
    pub max_held: usize,
    /// How long a device that catches up may read nothing. As long as it reads something, however little,
    /// it is not disconnected.
    pub patience: Duration,
    /// How many sessions a user may have; `None` for as many as come.
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

impl<D: Device> Sessions<D> {
    /// Nobody is there yet.
    pub fn new(
        sign_in: SignIn,
        catch_up: CatchUp,
        clock: Arc<dyn Clock>,
        settings: SessionSettings,
    ) -> Self {
        Self {
            sign_in,
            catch_up,
            clock,
            settings,
            rooms: Arc::default(),
            next_id: AtomicU64::new(1),
            deadlines: Deadlines::default(),
            behind: LaggingSessions::default(),
            turns: ReplayTurns::new(TurnLimits::USUAL),
        }
    }

    /// Who shows this token, if it lets a device hear what happens in an inbox.
    pub async fn sign_in(&self, token: Option<BearerToken>) -> Result<Claims, Refusal> {
        let claims = self.sign_in.run(token).await?;
        self.sign_in.access().check(&claims, Action::ReadInbox)?;
        Ok(claims)
    }

    /// Lets a device in, before its client is told that it is connected. It is in its user's room at
    /// once; what happens from now on is held back until [`start`](Self::start) has sent it what it
    /// missed. The caller then calls [`prepare`](Self::prepare), tells the client, and calls `start`; and
    /// it calls [`leave`](Self::leave) when the connection ends.
    ///
    /// The session may be over when this returns, or at any time later: [`CloseReason`] reaches a
    /// device that was not told that it is connected.
    pub fn join(&self, admission: Admission<D>, device: D) -> Arc<Session<D>> {
        let Admission { claims, place } = admission;
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let session = Arc::new(Session::new(id, claims, device, self.settings.max_held));
        for oldest in self.enter(session.clone(), place) {
            self.deadlines.forget(&oldest);
            Self::disconnect(&oldest, CloseReason::TooManySessions, &TooManySessions);
        }
        self.schedule_expiry(&session);
        // Perhaps it was revoked between the sign-in and the room, where those who are concerned are
        // looked for.
        if session.is_revoked(self.sign_in.revoked()) {
            self.end(&session, CloseReason::TokenRevoked, &Refusal::TokenRevoked);
        }
        session
    }

    /// The connection is gone. Leaving twice does nothing.
    pub fn leave(&self, session: &Session<D>) {
        self.deadlines.forget(session);
        if self.rooms.leave(session) {
            debug!(user = %session.user(), "device left");
        }
    }

    /// Ends a session for good, and says why in these words. One that has ended already is left alone.
    pub fn end(&self, session: &Session<D>, why: CloseReason, words: &dyn fmt::Display) {
        self.deadlines.forget(session);
        // Out of the room at once: how long the transport takes to close is not ours to say.
        if self.rooms.leave(session) {
            Self::disconnect(session, why, words);
        }
    }

    /// Says why a session has ended, and closes it.
    fn disconnect(session: &Session<D>, why: CloseReason, words: &dyn fmt::Display) {
        debug!(user = %session.user(), why = why.as_str(), "device sent away");
        // A device that is too slow to hear it finds out.
        let _ = session.say(&Push::Exception { code: why.as_str(), message: words.to_string() });
        session.device().close(why);
    }

    /// Disconnects a device whose send queue is full. It comes back and catches up.
    pub fn disconnect_slow_consumer(session: &Session<D>) {
        warn!(user = %session.user(), "slow consumer: send queue full; disconnecting device");
        session.device().close(CloseReason::TooSlow);
    }

    /// The guard before each message of a device.
    pub fn authorize(&self, session: &Session<D>, action: Action) -> Result<(), Refusal> {
        session.authorize(self.clock.now(), self.sign_in.access(), action)
    }

    /// A device shows a newer token of the same user: the session goes on until that one ends.
    pub async fn refresh(
        &self,
        session: &Arc<Session<D>>,
        token: Option<BearerToken>,
    ) -> Result<Timestamp, Refusal> {
        let claims = self.sign_in(token).await?;
        let expires_at = session.renew(claims)?;
        self.schedule_expiry(session);
        Ok(expires_at)
    }

    /// Tells all devices in the room, and answers how many there are. Nothing is encoded for an
    /// empty room. A device that does not read what it is told is sent away; one that has missed
    /// something catches up (see [`catch_up_lagging`](Self::catch_up_lagging)).
    pub fn deliver(&self, room: &UserRoom, announcement: &PushBatch) -> usize {
        let present = self.rooms.present_in(room);
        if present.is_empty() {
            return 0;
        }
        let frames: Arc<[D::Frame]> = announcement.pushes.iter().map(D::frame).collect();
        let mut told = 0;
        for session in present {
            match session.deliver(announcement.revision, &frames) {
                DeliveryOutcome::Delivered => told += 1,
                DeliveryOutcome::Missed(since) => self.mark_lagging(&session, since),
                DeliveryOutcome::Failed(SendError::Full) => {
                    Self::disconnect_slow_consumer(&session)
                }
                // Its leave is on the way.
                DeliveryOutcome::Failed(SendError::Closed) => {}
            }
        }
        told
    }

    /// Sends all devices away, to come back to another node: one after the other, so that they do
    /// not all come at once, within `spread`.
    pub async fn drain(&self, spread: Duration) {
        let all = self.rooms.all();
        let pause = spread.checked_div(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let begin = tokio::time::Instant::now();
        for (n, session) in (0_u32..).zip(&all) {
            session.device().close(CloseReason::ShuttingDown);
            // Slept in steps that a timer can measure.
            if let Some(due) = pause.map(|pause| begin + pause * n)
                && due > tokio::time::Instant::now() + Duration::from_millis(1)
            {
                tokio::time::sleep_until(due).await;
            }
        }
    }

    /// How many devices are signed in.
    pub fn count(&self) -> usize {
        self.rooms.sessions()
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
