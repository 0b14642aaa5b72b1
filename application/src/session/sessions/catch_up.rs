//! Sends devices the changes that they missed: when they connect, when they request it, and when an
//! event was lost.
//!
//! ```text
//! join ──▶ the gate holds live events back
//!   prepare: read the store; the inbox is at revision R0
//!   (the transport confirms the connect to the client)
//!   start: sync ──▶ pages up to R0 ──▶ count at R0 ──▶ the gate is released at R0 ──▶ live events
//! ```
//!
//! The unread count at R0 is sent after the pages, or after the sync if there are none, so that the revisions
//! that a device receives only increase. If the count came first, the device would store its revision, R0. It
//! would then miss the remaining pages if its connection broke between them.
//!
//! R0 divides all changes. The store had each change up to R0 before the connect was confirmed to the client:
//! the replay contains the change, or the client loads its list. The gate was closed before the store was
//! read, so it holds the event of each change after R0. These events are sent after the pages. Nothing is
//! missed or sent twice, however long the pages take.

use std::error::Error;
use std::sync::Arc;

use belfry_domain::Revision;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Sessions;
use crate::ports::{CatchUpCause, CloseReason, Device, PortError, SendError};
use crate::push::{Push, PushBatch, SyncState};
use crate::session::gate::Release;
use crate::session::session::Session;
use crate::session::slow_reader::SlowReader;
use crate::session::sync_error::SyncError;
use crate::use_cases::{CatchUpPlan, ReplayPage, ResumePoint};

/// The side that caused a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Initiator {
    /// The device connected or requested the replay. The user is charged for the work, and the replay waits for
    /// the user's work budget.
    Device,
    /// The server repairs the loss of an event. The user is not charged.
    Server,
}

/// The push that follows the pages of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterReplay {
    /// The unread count, because a sync preceded the replay.
    Count,
    /// The unread count, if the replay sent anything.
    CountIfChanged,
}

impl<D: Device> Sessions<D> {
    /// A device is disconnected after this many gaps in its held events, each of which caused another replay.
    const MAX_GAPS: usize = 8;

    /// Reads the state of the inbox of a session that has just [joined](Self::join), and plans how to
    /// bring its device up to date from `resume`. Call it before the connect is confirmed to the client,
    /// because the device must receive every later change as an event.
    ///
    /// After an error, call [`leave`](Self::leave) and let the client reconnect later.
    pub async fn prepare(
        &self,
        session: &Session<D>,
        resume: Option<ResumePoint>,
    ) -> Result<CatchUpPlan, PortError> {
        let plan = self.catch_up.plan(session.user(), resume.as_ref()).await;
        plan.inspect_err(|error| Self::log_replay_failed(session, error))
    }

    fn log_replay_failed(session: &Session<D>, error: &PortError) {
        let error = error as &dyn Error;
        warn!(user = %session.user(), error, "replay failed; disconnecting device");
    }

    /// Sends a device that has just connected the state of its inbox and the changes that it missed, then
    /// lets live events through. A device that cannot be brought up to date is disconnected and can
    /// reconnect.
    pub async fn start(&self, session: &Arc<Session<D>>, plan: CatchUpPlan) {
        let (started, is_replay) = (Instant::now(), plan.replay.is_some());
        if let Err(error) = self.run_plan(session, plan).await {
            session.device().close(error.close_reason());
        }
        if is_replay {
            self.monitor.record(CatchUpCause::Connect, started.elapsed());
        }
    }

    /// Sends a connected device the changes since `resume`, as if it had just connected. Returns the state
    /// in the last [`Push::Sync`] that was sent to it.
    pub async fn sync(
        &self,
        session: &Arc<Session<D>>,
        resume: Option<ResumePoint>,
    ) -> Result<SyncState, SyncError> {
        // The gate must be closed before the store is read, as in `join`.
        let Some(last_delivered) = session.close_gate() else {
            return Err(SyncError::InProgress);
        };
        let started = Instant::now();
        let synced = self.sync_after(session, last_delivered, resume).await;
        self.monitor.record(CatchUpCause::Request, started.elapsed());
        // The gate would stay closed for ever. When the device reconnects, it gets a session with a new gate.
        if let Err(error) = &synced {
            session.device().close(error.close_reason());
        }
        synced
    }

    async fn sync_after(
        &self,
        session: &Session<D>,
        last_delivered: Revision,
        resume: Option<ResumePoint>,
    ) -> Result<SyncState, SyncError> {
        let mut plan = self.prepare(session, resume).await?;
        // The store may have changes whose events have not arrived yet. A device that starts over would
        // find them only in its list. A connected device must receive each of them as an event, so they are
        // replayed first.
        if !plan.sync.recovered && last_delivered < plan.sync.revision {
            let repair = self.plan_repair(session, last_delivered).await?;
            let sync = if repair.sync.recovered {
                self.replay(session, repair, Initiator::Device, AfterReplay::CountIfChanged).await?
            } else {
                repair.sync
            };
            plan = CatchUpPlan { sync: sync.without_replay(), replay: None };
        }
        self.run_plan(session, plan).await
    }

    /// Brings all devices up to date from the store, because events may have been lost without a gap in
    /// the revisions. A device that has missed nothing is sent nothing.
    pub async fn catch_up_all(&self) {
        let all = self.rooms.all_sessions();
        info!(devices = all.len(), "events may have been lost; all devices catch up");
        for session in all {
            // A device with a closed gate is catching up already. Its replay may have read the store before
            // the lost event was stored. `report_loss` makes it read the store once more.
            if let Some(last_delivered) = session.report_loss() {
                // This waits while the queue is full. `catch_up_lagging` empties the queue.
                self.lagging.push(&session, last_delivered).await;
            }
        }
    }

    /// Queues a device that has missed an event. If the queue is full, the device is disconnected, and catches
    /// up when it reconnects.
    pub(super) fn mark_lagging(&self, session: &Arc<Session<D>>, last_delivered: Revision) {
        if self.lagging.try_push(session, last_delivered).is_err() {
            session.device().close(CloseReason::NotCaughtUp);
        }
    }

    /// Brings lagging devices up to date, one after another, until `stop` is cancelled. Run it several times
    /// concurrently to serve several devices at a time.
    pub async fn catch_up_lagging(&self, stop: CancellationToken) {
        while let Some(lagging) = stop.run_until_cancelled(self.lagging.pop()).await {
            let Some(session) = lagging.session() else { continue };
            if let Err(error) = self.repair(&session, lagging.last_delivered).await {
                session.device().close(error.close_reason());
            }
            self.monitor.record(CatchUpCause::MissedEvent, lagging.since.elapsed());
        }
    }

    /// The number of sessions that missed an event while they were connected and have not caught up yet.
    pub fn lagging_count(&self) -> usize {
        self.lagging.count()
    }

    /// Sends the plan's sync and replay, and opens the gate.
    async fn run_plan(
        &self,
        session: &Session<D>,
        plan: CatchUpPlan,
    ) -> Result<SyncState, SyncError> {
        self.send(session, &Push::Sync(plan.sync.clone())).await?;
        let sync = self.replay(session, plan, Initiator::Device, AfterReplay::Count).await?;
        self.open_gate(session, sync.revision, Initiator::Device).await?;
        Ok(sync)
    }

    /// Sends the changes after `last_delivered`, and opens the gate. Sends nothing to a device that has
    /// missed nothing.
    async fn repair(
        &self,
        session: &Session<D>,
        last_delivered: Revision,
    ) -> Result<(), SyncError> {
        let last_delivered = self.replay_after(session, last_delivered, Initiator::Server).await?;
        self.open_gate(session, last_delivered, Initiator::Server).await
    }

    /// Sends the events that the gate holds, and opens the gate when none is left.
    async fn open_gate(
        &self,
        session: &Session<D>,
        mut last_delivered: Revision,
        initiator: Initiator,
    ) -> Result<(), SyncError> {
        let mut gaps = 0;
        while gaps < Self::MAX_GAPS {
            last_delivered = match session.release_gate(last_delivered) {
                Release::Open => return Ok(()),
                Release::Held(held, last_held) => {
                    for frame in held.iter().flat_map(|frames| frames.iter()) {
                        self.send_frame(session, frame).await?;
                    }
                    last_held
                }
                Release::Gap => {
                    gaps += 1;
                    self.replay_after(session, last_delivered, initiator).await?
                }
            };
        }
        Err(SyncError::CannotKeepUp)
    }

    /// Sends the stored changes after `last_delivered`. Returns the revision of the last one.
    async fn replay_after(
        &self,
        session: &Session<D>,
        last_delivered: Revision,
        initiator: Initiator,
    ) -> Result<Revision, SyncError> {
        let plan = self.plan_repair(session, last_delivered).await?;
        let after = if plan.sync.recovered {
            AfterReplay::CountIfChanged
        } else {
            self.send(session, &Push::Sync(plan.sync.clone())).await?;
            AfterReplay::Count
        };
        Ok(self.replay(session, plan, initiator, after).await?.revision)
    }

    async fn plan_repair(
        &self,
        session: &Session<D>,
        last_delivered: Revision,
    ) -> Result<CatchUpPlan, PortError> {
        self.prepare(session, Some(ResumePoint { since: last_delivered, epoch: None })).await
    }

    /// Sends a plan's replay page by page. A page is read from the store when the device has read the previous
    /// page. Returns the state that the device has been brought to.
    ///
    /// If the history is purged during the replay, the device is sent a sync at the same revision and
    /// must reload its list. The gate still holds the later events.
    async fn replay(
        &self,
        session: &Session<D>,
        plan: CatchUpPlan,
        initiator: Initiator,
        after: AfterReplay,
    ) -> Result<SyncState, SyncError> {
        let user = session.user();
        let mut send_count = after == AfterReplay::Count;
        let mut sync = plan.sync;
        let mut remaining = plan.replay;
        while let Some(range) = remaining.as_mut().filter(|range| !range.is_done()) {
            let turn = self.replay_limiter.turn(user).await;
            if initiator == Initiator::Device {
                // This waits within the user's turn. Otherwise each of the user's devices would read a page
                // before the first one is charged.
                self.work.available(user).await;
            }
            let permit = self.replay_limiter.acquire(turn).await;
            let page = self.catch_up.page(user, *range).await;
            match page.inspect_err(|error| Self::log_replay_failed(session, error))? {
                ReplayPage::OutOfReach => {
                    sync = sync.without_replay();
                    self.send(session, &Push::Sync(sync.clone())).await?;
                    send_count = true;
                    remaining = None;
                }
                ReplayPage::Complete { batches, end } => {
                    send_count |= !batches.is_empty();
                    if initiator == Initiator::Device {
                        let text_bytes = batches.iter().map(PushBatch::text_bytes).sum();
                        self.work.charge(user, batches.len(), text_bytes);
                    }
                    let reader =
                        SlowReader::new(&self.replay_limiter, permit, self.settings.patience);
                    send_page(session, reader, batches).await?;
                    range.after = end;
                }
            }
        }
        if let Some(count) = sync.unread_count_push().filter(|_| send_count) {
            self.send(session, &count).await?;
        }
        Ok(sync)
    }

    async fn send(&self, session: &Session<D>, push: &Push) -> Result<(), SyncError> {
        self.send_frame(session, &D::frame(push)).await
    }

    async fn send_frame(&self, session: &Session<D>, frame: &D::Frame) -> Result<(), SyncError> {
        let sent = session.send_with_timeout(frame, self.settings.patience).await;
        sent.map_err(|_| SyncError::SendFailed)
    }
}

/// Sends a page, and waits until the device has read it.
async fn send_page<D: Device>(
    session: &Session<D>,
    mut reader: SlowReader<'_>,
    batches: Vec<PushBatch>,
) -> Result<(), SyncError> {
    let device = session.device();
    for push in batches.iter().flat_map(|batch| &batch.pushes) {
        let frame = D::frame(push);
        loop {
            match device.send(&frame) {
                Ok(()) => break reader.record_read(),
                Err(SendError::Full) => reader.wait(device.queued()).await?,
                Err(SendError::Closed) => return Err(SyncError::SendFailed),
            }
        }
    }
    // All frames are queued, so the batches need not stay in memory while the device reads.
    drop(batches);
    loop {
        match device.queued() {
            0 => return Ok(()),
            queued => reader.wait(queued).await?,
        }
    }
}
