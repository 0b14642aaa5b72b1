use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::outbound::relational::Call;

/// The channel on which nodes tell each other of commits.
pub(super) const CHANNEL: &str = "belfry_outbox";

/// Calls the lead of the outbox after a commit, wherever it is.
///
/// Not by a `NOTIFY` in the transaction itself: from there to the end of its commit, such a
/// transaction keeps a lock that the whole database has only once (`PreCommit_Notify`), so commits
/// would stand in line. Instead the lead of this process is called directly, and a lead elsewhere by
/// a `NOTIFY` of its own for all commits of a few milliseconds. A call that is lost on the way (this
/// process ends, the database is away) costs the lead its patience and nothing else.
#[derive(Debug)]
pub(super) struct Waker {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Stops the task when the last clone of the store goes.
    _stop_when_dropped: DropGuard,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// For the lead of this process. Keeps one call for a lead that is about to wait.
    here: Notify,
    /// For the task that calls the other nodes.
    elsewhere: Notify,
    led_here: AtomicBool,
}

/// Calls between two `NOTIFY`s become one.
const PAUSE: Duration = Duration::from_millis(3);

impl Waker {
    /// Starts the task that calls other nodes.
    pub(super) fn start(pool: PgPool) -> Self {
        let stop = CancellationToken::new();
        let shared = Arc::<Shared>::default();
        tokio::spawn(stop.clone().run_until_cancelled_owned(call_elsewhere(pool, shared.clone())));
        Self { shared, stop: stop.clone(), _stop_when_dropped: stop.drop_guard() }
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Calls the lead when the answer is dropped.
    pub(super) fn call_when_dropped(&self) -> Call<impl FnMut()> {
        Call::when_dropped(|| self.shared.call())
    }

    /// What the lead of this process needs.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    fn call(&self) {
        self.here.notify_one();
        // A lead of this process has the lock that another node's would need.
        if !self.led_here.load(Ordering::SeqCst) {
            self.elsewhere.notify_one();
        }
    }

    /// Waits for a call from this process.
    pub(super) async fn called(&self) {
        self.here.notified().await;
    }

    /// The lead is here now.
    pub(super) fn lead(self: &Arc<Self>) -> LedHere {
        self.led_here.store(true, Ordering::SeqCst);
        LedHere(self.clone())
    }
}

/// The lead is in this process for as long as this lives.
#[derive(Debug)]
pub(super) struct LedHere(Arc<Shared>);

impl Drop for LedHere {
    fn drop(&mut self) {
        self.0.led_here.store(false, Ordering::SeqCst);
    }
}

async fn call_elsewhere(pool: PgPool, shared: Arc<Shared>) {
    loop {
        shared.elsewhere.notified().await;
        let called = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&pool).await;
        if let Err(error) = called {
            debug!(%error, "no other node was told of new outbox entries");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
