//! Devices get what they missed: when they come, when they ask, and when something was lost on its way
//! to them.

use std::error::Error;
use std::sync::{Arc, Weak};

use belfry_domain::Revision;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Sessions;
use crate::announcement::{Announcement, Push, SyncState};
use crate::ports::{CloseReason, Device, PortError};
use crate::session::{Release, Session};
use crate::use_cases::{Replay, Seen};

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

impl NotSynced {
    fn close_reason(&self) -> CloseReason {
        match self {
            Self::Unsent | Self::FallsBehind => CloseReason::TooSlow,
            Self::UnderWay | Self::Port(_) => CloseReason::NotCaughtUp,
        }
    }
}

/// Those that have missed something, and since which revision. Each is here once at most: its gate is
/// closed until it has caught up.
pub(super) struct Behind<D: Device> {
    put: mpsc::Sender<Late<D>>,
    take: Mutex<mpsc::Receiver<Late<D>>>,
}

type Late<D> = (Weak<Session<D>>, Revision);

impl<D: Device> Default for Behind<D> {
    fn default() -> Self {
        const WAITING_AT_MOST: usize = 4_096;
        let (put, take) = mpsc::channel(WAITING_AT_MOST);
        Self { put, take: Mutex::new(take) }
    }
}

impl<D: Device> Sessions<D> {
    /// How often a device that is overtaken by events while it catches up may try again.
    const ROUNDS: usize = 8;

    /// Tells a device that has just joined where its inbox stands and what it missed, then lets
    /// live announcements through. A device that cannot be told is sent away, to come back.
    pub async fn welcome(&self, session: &Arc<Session<D>>, seen: Option<Seen>) {
        if let Err(why) = self.replay(session, seen).await {
            session.device().close(why.close_reason());
        }
    }

    /// Tells a device that asks for it what it missed, as if it had just joined.
    pub async fn sync(
        &self,
        session: &Arc<Session<D>>,
        seen: Option<Seen>,
    ) -> Result<SyncState, NotSynced> {
        if session.hold().is_none() {
            return Err(NotSynced::UnderWay);
        }
        let synced = self.replay(session, seen).await;
        // Left as it is, the session would hold back for ever: better the device comes back.
        if let Err(why) = &synced {
            session.device().close(why.close_reason());
        }
        synced
    }

    /// Announcements may have passed this node by: all its devices catch up with the store, as far
    /// as there is something to catch up with.
    pub async fn catch_up_all(&self) {
        let all = self.rooms.all();
        info!(devices = all.len(), "events may have been missed: all devices catch up");
        for session in all {
            if let Some(told) = session.hold() {
                // Waits while many do. Those who take them out outlive this.
                let _ = self.behind.put.send((Arc::downgrade(&session), told)).await;
            }
        }
    }

    /// A device has missed something. Where too many have, it is sent away to come back.
    pub(super) fn falls_behind(&self, session: &Arc<Session<D>>, since: Revision) {
        if self.behind.put.try_send((Arc::downgrade(session), since)).is_err() {
            session.device().close(CloseReason::NotCaughtUp);
        }
    }

    /// Lets those that have missed something catch up, one after the other, until told to stop. Run
    /// it several times at once for as many at a time.
    pub async fn catch_up_those_behind(&self, stop: CancellationToken) {
        let next = async || self.behind.take.lock().await.recv().await;
        while let Some(Some((session, told))) = stop.run_until_cancelled(next()).await {
            let Some(session) = session.upgrade() else { continue };
            if let Err(why) = self.repair(&session, told).await {
                session.device().close(why.close_reason());
            }
        }
    }

    /// Replays what was missed and opens the gate. Read from the store after the device joined its
    /// room: what happens meanwhile is held back, and so is never missed and never told twice.
    async fn replay(
        &self,
        session: &Session<D>,
        seen: Option<Seen>,
    ) -> Result<SyncState, NotSynced> {
        let Replay { sync, missed } = self.catch_up(session, seen.as_ref()).await?;
        self.send(session, std::slice::from_ref(&Push::Sync(sync.clone()))).await?;
        self.send_all(session, missed).await?;
        self.open_gate(session, sync.revision).await?;
        Ok(sync)
    }

    /// Tells a device what it missed after `told`, and opens the gate. Nothing is said to one that
    /// has missed nothing.
    async fn repair(&self, session: &Session<D>, told: Revision) -> Result<(), NotSynced> {
        let told = self.tell_since(session, told).await?;
        self.open_gate(session, told).await
    }

    /// Sends what was held back meanwhile, until there is nothing left.
    async fn open_gate(&self, session: &Session<D>, mut told: Revision) -> Result<(), NotSynced> {
        let mut gaps = 0;
        while gaps < Self::ROUNDS {
            told = match session.release(told) {
                Release::Open => return Ok(()),
                Release::Held(held, told) => {
                    for frame in held.iter().flat_map(|frames| frames.iter()) {
                        self.send_frame(session, frame).await?;
                    }
                    told
                }
                Release::Gap => {
                    gaps += 1;
                    self.tell_since(session, told).await?
                }
            };
        }
        Err(NotSynced::FallsBehind)
    }

    /// Tells what the store has after `told`, and answers up to where that is.
    async fn tell_since(
        &self,
        session: &Session<D>,
        told: Revision,
    ) -> Result<Revision, NotSynced> {
        let seen = Seen { since: told, epoch: None };
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
