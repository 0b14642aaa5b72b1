use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use belfry_domain::{Revision, Timestamp, UserRoom};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::deadlines::Deadlines;
use super::gate::Release;
use super::rooms::Rooms;
use super::session::{Session, SessionId};
use crate::announcement::{Announcement, Push, SyncState};
use crate::ports::{BearerToken, Claims, Clock, CloseReason, Device, PortError, Unsent};
use crate::use_cases::{CatchUp, Refusal, Replay, Seen, SignIn};

/// All devices that are signed in on this node.
pub struct Sessions<D: Device> {
    sign_in: SignIn,
    catch_up: CatchUp,
    clock: Arc<dyn Clock>,
    settings: SessionSettings,
    rooms: Rooms<D>,
    next_id: AtomicU64,
    deadlines: Deadlines<D>,
}

/// How sessions are run.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// How long before its end a device is told that its token ends.
    pub warn_before_expiry: Duration,
    /// How many announcements are held back for a device that catches up.
    pub held_at_most: usize,
    /// How long a device that catches up may read nothing.
    pub patience: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            warn_before_expiry: Duration::from_secs(60),
            held_at_most: 256,
            patience: Duration::from_secs(15),
        }
    }
}

/// Why a device that asked for what it missed did not get it.
#[derive(Debug, thiserror::Error)]
pub enum NotSynced {
    /// It is getting that already.
    #[error("the device is catching up already")]
    UnderWay,
    /// The store could not be read.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The device does not read, or is gone.
    #[error("the device does not take what it missed")]
    Unsent,
    /// More happens than the device can be told.
    #[error("the device falls behind faster than it catches up")]
    FallsBehind,
}

impl<D: Device> Sessions<D> {
    /// How often a device that is overtaken by events while it catches up may try again.
    const ROUNDS: usize = 8;
    /// How exactly expiry is kept.
    const TICK: Duration = Duration::from_millis(250);

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
            rooms: Rooms::default(),
            next_id: AtomicU64::new(1),
            deadlines: Deadlines::default(),
        }
    }

    /// Who shows this token.
    pub async fn sign_in(&self, token: Option<BearerToken>) -> Result<Claims, Refusal> {
        self.sign_in.run(token).await
    }

    /// Lets a device in. It is in its user's room at once; what happens from now on is held back
    /// until [`welcome`](Self::welcome) has told it what it missed. Whoever calls this calls
    /// [`leave`](Self::leave) when the connection ends.
    pub fn join(&self, claims: Claims, device: D) -> Arc<Session<D>> {
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let session = Arc::new(Session::new(id, claims, device, self.settings.held_at_most));
        self.rooms.join(session.clone());
        self.remind(&session);
        session
    }

    /// The connection is gone. Leaving twice does nothing.
    pub fn leave(&self, session: &Session<D>) {
        self.deadlines.forget(session);
        if self.rooms.leave(session) {
            debug!(user = %session.user(), "device left");
        }
    }

    /// Tells a device that has just joined where its inbox stands and what it missed, then lets
    /// live announcements through. A device that cannot be told is sent away, to come back.
    pub async fn welcome(&self, session: &Arc<Session<D>>, seen: Option<Seen>) {
        let why = match self.replay(session, seen).await {
            Ok(_) => return,
            Err(NotSynced::Unsent | NotSynced::FallsBehind) => CloseReason::TooSlow,
            Err(NotSynced::UnderWay | NotSynced::Port(_)) => CloseReason::NotCaughtUp,
        };
        session.device().close(why);
    }

    /// Tells a device that asks for it what it missed, as if it had just joined.
    pub async fn sync(
        &self,
        session: &Arc<Session<D>>,
        seen: Option<Seen>,
    ) -> Result<SyncState, NotSynced> {
        if !session.hold() {
            return Err(NotSynced::UnderWay);
        }
        let synced = self.replay(session, seen).await;
        // Left as it is, the session would hold back for ever: better the device comes back.
        if synced.is_err() {
            session.device().close(CloseReason::NotCaughtUp);
        }
        synced
    }

    /// The guard before each message of a device.
    pub fn authorize(
        &self,
        session: &Session<D>,
        scope: Option<&'static str>,
    ) -> Result<(), Refusal> {
        session.authorize(self.clock.now(), scope)
    }

    /// A device shows a newer token of the same user: the session goes on until that one ends.
    pub async fn refresh(
        &self,
        session: &Arc<Session<D>>,
        token: Option<BearerToken>,
    ) -> Result<Timestamp, Refusal> {
        let claims = self.sign_in.run(token).await?;
        let expires_at = session.renew(claims)?;
        self.remind(session);
        Ok(expires_at)
    }

    /// Tells all devices in the room, and answers how many there are. Nothing is encoded for an
    /// empty room. A device that does not read what it is told is sent away.
    pub fn tell(&self, room: &UserRoom, announcement: &Announcement) -> usize {
        if self.rooms.is_empty(room) {
            return 0;
        }
        let frames: Arc<[D::Frame]> = announcement.pushes.iter().map(D::frame).collect();
        let mut told = 0;
        let mut too_slow = Vec::new();
        self.rooms.for_each_in(room, |session| {
            match session.tell(announcement.revision, &frames) {
                Ok(()) => told += 1,
                Err(Unsent::Full) => too_slow.push(session.clone()),
                // Its leave is on the way.
                Err(Unsent::Closed) => {}
            }
        });
        for session in too_slow {
            warn!(user = %session.user(), "device reads too slowly: sent away to catch up later");
            session.device().close(CloseReason::TooSlow);
        }
        told
    }

    /// Sends all devices away, to come back to another node: one after the other, so that they do
    /// not all come at once, within `spread`.
    pub async fn dismiss(&self, spread: Duration) {
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

    /// Ends sessions with their tokens, and warns before, until told to stop.
    pub async fn keep_time(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Self::TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.end_what_is_over();
        }
    }

    fn end_what_is_over(&self) {
        let now = self.clock.now();
        for session in self.deadlines.due(now) {
            let expires_at = session.expires_at();
            if expires_at <= now {
                self.expire(&session);
                continue;
            }
            if expires_at.minus(self.settings.warn_before_expiry) <= now && session.warn_once() {
                // A device that is too slow to hear it hears the end.
                let _ = session.say(&Push::Expiring { expires_at });
            }
            self.remind(&session);
        }
    }

    fn expire(&self, session: &Session<D>) {
        let refusal = Refusal::TokenExpired;
        let _ =
            session.say(&Push::Exception { code: refusal.code(), message: refusal.to_string() });
        // Out of the room at once: how long the transport takes to close is not ours to say.
        self.leave(session);
        session.device().close(CloseReason::TokenExpired);
    }

    /// Sees to it that the session is looked at when its token is about to end, and when it does.
    fn remind(&self, session: &Arc<Session<D>>) {
        let expires_at = session.expires_at();
        let warn_at = expires_at.minus(self.settings.warn_before_expiry);
        let due = if warn_at > self.clock.now() { warn_at } else { expires_at };
        self.deadlines.set(session, due);
    }

    /// Replays what was missed and opens the gate. Read from the store after the device joined its
    /// room: what happens meanwhile is held back, and so is never missed and never told twice.
    async fn replay(
        &self,
        session: &Arc<Session<D>>,
        seen: Option<Seen>,
    ) -> Result<SyncState, NotSynced> {
        let Replay { sync, missed } = self.catch_up(session, seen.as_ref()).await?;
        self.send(session, std::slice::from_ref(&Push::Sync(sync.clone()))).await?;
        self.send_all(session, missed).await?;
        let mut told = sync.revision;
        let mut overflows = 0;
        while overflows < Self::ROUNDS {
            told = match session.release(told) {
                Release::Open => return Ok(sync),
                Release::Held(held, told) => {
                    for frame in held.iter().flat_map(|frames| frames.iter()) {
                        self.send_frame(session, frame).await?;
                    }
                    told
                }
                Release::Overflowed => {
                    overflows += 1;
                    self.catch_up_again(session, told, &sync).await?
                }
            };
        }
        Err(NotSynced::FallsBehind)
    }

    /// More happened during a replay than was held back: the store knows it.
    async fn catch_up_again(
        &self,
        session: &Session<D>,
        told: Revision,
        first: &SyncState,
    ) -> Result<Revision, NotSynced> {
        let seen = Seen { since: told, epoch: Some(first.epoch.clone()) };
        let Replay { sync, missed } = self.catch_up(session, Some(&seen)).await?;
        let revision = sync.revision;
        if !sync.recovered {
            self.send(session, &[Push::Sync(sync)]).await?;
        }
        self.send_all(session, missed).await?;
        Ok(revision)
    }

    async fn catch_up(
        &self,
        session: &Session<D>,
        seen: Option<&Seen>,
    ) -> Result<Replay, PortError> {
        self.catch_up.run(session.user(), seen).await.inspect_err(|error| {
            warn!(user = %session.user(), error = error as &dyn Error, "no catching up");
        })
    }

    async fn send_all(
        &self,
        session: &Session<D>,
        missed: Vec<Announcement>,
    ) -> Result<(), NotSynced> {
        for announcement in missed {
            self.send(session, &announcement.pushes).await?;
        }
        Ok(())
    }

    async fn send(&self, session: &Session<D>, pushes: &[Push]) -> Result<(), NotSynced> {
        for push in pushes {
            self.send_frame(session, &D::frame(push)).await?;
        }
        Ok(())
    }

    async fn send_frame(&self, session: &Session<D>, frame: &D::Frame) -> Result<(), NotSynced> {
        let sent = session.send_patiently(frame, self.settings.patience).await;
        sent.map_err(|_| NotSynced::Unsent)
    }
}

#[cfg(test)]
mod tests;
