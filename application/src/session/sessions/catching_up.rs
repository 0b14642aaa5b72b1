//! Devices get what they missed: when they connect, when they ask, and when an event was lost on its way
//! to them.
//!
//! ```text
//! join ──▶ the gate holds live events back
//!   prepare: the store is read, the inbox stands at R0
//!   (the transport tells the client that it is connected)
//!   start: sync ──▶ pages up to R0 ──▶ the gate is released at R0 ──▶ live events
//! ```
//!
//! Every event is on one side of R0. Up to R0 it is a change that the store knew before the client was
//! told that it is connected; the replay has it, or the client loads its list. After R0 it is in the gate,
//! which was closed before the store was read, and goes out from there. No event is on both sides and none
//! on neither, however long the pages take.

use std::error::Error;
use std::sync::{Arc, Weak};

use belfry_domain::Revision;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Sessions;
use super::slow_reader::SlowReader;
use crate::ports::{CloseReason, Device, PortError, SendError};
use crate::push::{Push, PushBatch, SyncState};
use crate::session::{Release, Session};
use crate::use_cases::{CatchUpPlan, ReplayPage, ResumePoint};

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
pub(super) struct LaggingSessions<D: Device> {
    put: mpsc::Sender<Late<D>>,
    take: Mutex<mpsc::Receiver<Late<D>>>,
}

type Late<D> = (Weak<Session<D>>, Revision);

impl<D: Device> Default for LaggingSessions<D> {
    fn default() -> Self {
        const WAITING_AT_MOST: usize = 4_096;
        let (put, take) = mpsc::channel(WAITING_AT_MOST);
        Self { put, take: Mutex::new(take) }
    }
}

impl<D: Device> Sessions<D> {
    /// How often a device that is overtaken by events while it catches up may try again.
    const ROUNDS: usize = 8;

    /// Reads where the inbox of a session that has just [joined](Self::join) stands, and decides how to
    /// bring its device up to date from `resume`. To be called before the client is told that it is
    /// connected: whatever happens from then on reaches it as an event.
    ///
    /// After an error, [`leave`](Self::leave) and have the client come back later.
    pub async fn prepare(
        &self,
        session: &Session<D>,
        resume: Option<ResumePoint>,
    ) -> Result<CatchUpPlan, PortError> {
        let plan = self.catch_up.plan(session.user(), resume.as_ref()).await;
        plan.inspect_err(|error| Self::log_failed(session, error))
    }

    fn log_failed(session: &Session<D>, error: &PortError) {
        warn!(user = %session.user(), error = error as &dyn Error, "no catching up");
    }

    /// Sends a device that has just been told that it is connected where its inbox stands and what it
    /// missed, then lets live events through. A device that cannot be brought up to date is disconnected,
    /// to come back.
    pub async fn start(&self, session: &Arc<Session<D>>, plan: CatchUpPlan) {
        if let Err(why) = self.follow(session, plan).await {
            session.device().close(why.close_reason());
        }
    }

    /// Sends a device what it asks for, as if it had just connected. Returns what `notification:sync` told
    /// it last; [`SyncState::missed`] is what to charge for.
    pub async fn sync(
        &self,
        session: &Arc<Session<D>>,
        resume: Option<ResumePoint>,
    ) -> Result<SyncState, NotSynced> {
        // Before the store is read, as in `join`.
        let Some(last_delivered) = session.hold() else {
            return Err(NotSynced::UnderWay);
        };
        let synced = self.sync_after(session, last_delivered, resume).await;
        // Left as it is, the session would hold back for ever: better the device comes back.
        if let Err(why) = &synced {
            session.device().close(why.close_reason());
        }
        synced
    }

    async fn sync_after(
        &self,
        session: &Session<D>,
        last_delivered: Revision,
        resume: Option<ResumePoint>,
    ) -> Result<SyncState, NotSynced> {
        let mut plan = self.prepare(session, resume).await?;
        // The store may know changes whose events are still on their way. A device that starts over would
        // find them in its list only, yet it is connected and must hear of each.
        if !plan.sync.recovered && last_delivered < plan.sync.revision {
            let repair = self.plan_repair(session, last_delivered).await?;
            let sync = if repair.sync.recovered {
                self.replay(session, repair).await?
            } else {
                repair.sync
            };
            plan = CatchUpPlan { sync: sync.without_replay(), replay: None };
        }
        self.follow(session, plan).await
    }

    /// Events may have passed this node by: all its devices catch up with the store, as far as there is
    /// something to catch up with.
    pub async fn catch_up_all(&self) {
        let all = self.rooms.all();
        info!(devices = all.len(), "events may have been missed: all devices catch up");
        for session in all {
            // One that is catching up may have read the store before the event that it missed, and looks
            // again by itself.
            if let Some(told) = session.distrust() {
                // Waits while many do. Those who take them out outlive this.
                let _ = self.behind.put.send((Arc::downgrade(&session), told)).await;
            }
        }
    }

    /// A device has missed something. Where too many have, it is sent away to come back.
    pub(super) fn mark_lagging(&self, session: &Arc<Session<D>>, since: Revision) {
        if self.behind.put.try_send((Arc::downgrade(session), since)).is_err() {
            session.device().close(CloseReason::NotCaughtUp);
        }
    }

    /// Lets those that have missed something catch up, one after the other, until told to stop. Run
    /// it several times at once for as many at a time.
    pub async fn catch_up_lagging(&self, stop: CancellationToken) {
        let next = async || self.behind.take.lock().await.recv().await;
        while let Some(Some((session, told))) = stop.run_until_cancelled(next()).await {
            let Some(session) = session.upgrade() else { continue };
            if let Err(why) = self.repair(&session, told).await {
                session.device().close(why.close_reason());
            }
        }
    }

    /// Sends the plan's sync and replay, and opens the gate.
    async fn follow(
        &self,
        session: &Session<D>,
        plan: CatchUpPlan,
    ) -> Result<SyncState, NotSynced> {
        self.send(session, &Push::Sync(plan.sync.clone())).await?;
        let sync = self.replay(session, plan).await?;
        self.open_gate(session, sync.revision).await?;
        Ok(sync)
    }

    /// Sends a device what it missed after `told`, and opens the gate. A device that has missed nothing
    /// notices nothing.
    async fn repair(&self, session: &Session<D>, told: Revision) -> Result<(), NotSynced> {
        let told = self.replay_after(session, told).await?;
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
                    self.replay_after(session, told).await?
                }
            };
        }
        Err(NotSynced::FallsBehind)
    }

    /// Sends what the store has after `told`, and returns up to where that is.
    async fn replay_after(
        &self,
        session: &Session<D>,
        told: Revision,
    ) -> Result<Revision, NotSynced> {
        let plan = self.plan_repair(session, told).await?;
        if !plan.sync.recovered {
            self.send(session, &Push::Sync(plan.sync.clone())).await?;
        }
        Ok(self.replay(session, plan).await?.revision)
    }

    async fn plan_repair(
        &self,
        session: &Session<D>,
        told: Revision,
    ) -> Result<CatchUpPlan, PortError> {
        self.prepare(session, Some(ResumePoint { since: told, epoch: None })).await
    }

    /// Sends a plan's replay page by page. The next page is read when the device has taken the one before.
    ///
    /// Where the rest of a replay is forgotten meanwhile, the device is told to start over, at the same
    /// revision: what happened after it is in the gate all the same.
    async fn replay(
        &self,
        session: &Session<D>,
        plan: CatchUpPlan,
    ) -> Result<SyncState, NotSynced> {
        let Some(mut rest) = plan.replay else { return Ok(plan.sync) };
        let mut any_sent = false;
        while !rest.is_done() {
            let turn = self.turns.take(session.user()).await;
            let page = self.catch_up.page(session.user(), rest).await;
            match page.inspect_err(|error| Self::log_failed(session, error))? {
                ReplayPage::OutOfReach => {
                    let sync = plan.sync.without_replay();
                    self.send(session, &Push::Sync(sync.clone())).await?;
                    return Ok(sync);
                }
                ReplayPage::Complete { announcements, end } => {
                    any_sent |= !announcements.is_empty();
                    let reader = SlowReader::new(&self.turns, turn, self.settings.patience);
                    send_page(session, reader, announcements).await?;
                    rest.after = end;
                }
            }
        }
        if any_sent {
            self.send(session, &plan.closing_count()).await?;
        }
        Ok(plan.sync)
    }

    async fn send(&self, session: &Session<D>, push: &Push) -> Result<(), NotSynced> {
        self.send_frame(session, &D::frame(push)).await
    }

    async fn send_frame(&self, session: &Session<D>, frame: &D::Frame) -> Result<(), NotSynced> {
        let sent = session.send_patiently(frame, self.settings.patience).await;
        sent.map_err(|_| NotSynced::Unsent)
    }
}

/// Sends a page, and waits until the device has taken it.
async fn send_page<D: Device>(
    session: &Session<D>,
    mut reader: SlowReader<'_>,
    announcements: Vec<PushBatch>,
) -> Result<(), NotSynced> {
    let device = session.device();
    for push in announcements.iter().flat_map(|one| &one.pushes) {
        let frame = D::frame(push);
        loop {
            match device.send(&frame) {
                Ok(()) => break reader.has_read(),
                Err(SendError::Full) => reader.wait(device.queued()).await?,
                Err(SendError::Closed) => return Err(NotSynced::Unsent),
            }
        }
    }
    // The device has them all, or will; only its queue counts now.
    drop(announcements);
    loop {
        match device.queued() {
            0 => return Ok(()),
            queued => reader.wait(queued).await?,
        }
    }
}
