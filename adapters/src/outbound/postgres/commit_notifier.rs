use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::failure::PgFailure;
use super::installation::InstallationCell;
use crate::outbound::relational::Wakeup;

/// Wakes the outbox's leader after a commit, on whichever node it runs.
///
/// The transaction itself does not `NOTIFY`: its commit would hold a lock that is global to the database
/// server (`PreCommit_Notify`), which would serialize all commits. Instead a leader in this process is woken
/// directly, and a leader on another node by one separate `NOTIFY` for all commits within a few milliseconds.
/// A wakeup may be lost (this process ends, the database is unreachable); the leader then waits until its own
/// timeout.
#[derive(Debug)]
pub(super) struct CommitNotifier {
    signals: Arc<CommitSignals>,
    stop: CancellationToken,
    /// Stops the task when this is dropped, together with the last clone of the store.
    _stop_when_dropped: DropGuard,
}

#[derive(Debug, Default)]
pub(super) struct CommitSignals {
    /// For a leader in this process. Stores one wakeup for a leader that is about to wait.
    local: Notify,
    /// For the task that notifies the other nodes.
    remote: Notify,
    leader_is_local: AtomicBool,
}

/// The pause after a `NOTIFY`. All wakeups during the pause are merged into the next `NOTIFY`.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(3);

impl CommitNotifier {
    /// Starts the task that notifies the other nodes.
    pub(super) fn start(pool: PgPool, installation: Arc<InstallationCell>) -> Self {
        let stop = CancellationToken::new();
        let signals = Arc::<CommitSignals>::default();
        let task = notify_other_nodes(pool, installation, signals.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(task));
        Self { signals, stop: stop.clone(), _stop_when_dropped: stop.drop_guard() }
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Wakes the leader when the returned value is dropped.
    pub(super) fn wakeup_on_drop(&self) -> Wakeup<impl FnMut()> {
        Wakeup::on_drop(|| self.signals.wake_leader())
    }

    /// The signals for a leader in this process.
    pub(super) fn signals(&self) -> &Arc<CommitSignals> {
        &self.signals
    }
}

impl CommitSignals {
    fn wake_leader(&self) {
        self.local.notify_one();
        // While a leader in this process holds the lease, no other node has a leader.
        if !self.leader_is_local.load(Ordering::SeqCst) {
            self.remote.notify_one();
        }
    }

    /// Waits for a commit of this process.
    pub(super) async fn local_commit(&self) {
        self.local.notified().await;
    }

    /// Records that the leader is in this process.
    pub(super) fn set_leader(self: &Arc<Self>) -> LeaderFlag {
        self.leader_is_local.store(true, Ordering::SeqCst);
        LeaderFlag(self.clone())
    }
}

/// Marks this process as the leader until it is dropped.
#[derive(Debug)]
pub(super) struct LeaderFlag(Arc<CommitSignals>);

impl Drop for LeaderFlag {
    fn drop(&mut self) {
        self.0.leader_is_local.store(false, Ordering::SeqCst);
    }
}

async fn notify_other_nodes(
    pool: PgPool,
    installation: Arc<InstallationCell>,
    signals: Arc<CommitSignals>,
) {
    loop {
        signals.remote.notified().await;
        if let Err(error) = notify(&pool, &installation).await {
            debug!(%error, "cannot notify other nodes of new outbox entries");
        }
        tokio::time::sleep(NOTIFY_INTERVAL).await;
    }
}

async fn notify(pool: &PgPool, installation: &InstallationCell) -> Result<(), PgFailure> {
    let channel = installation.get(pool).await?.channel();
    sqlx::query("SELECT pg_notify($1, '')").bind(channel).execute(pool).await?;
    Ok(())
}
