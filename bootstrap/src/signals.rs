//! Unix signals: shutdown on SIGTERM or SIGINT, reload on SIGHUP.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The exit code that shells report for a process that SIGINT (2) ended: 128 + 2.
const INTERRUPTED: i32 = 130;

/// The requests that arrive as Unix signals.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Cancelled at the first SIGTERM or SIGINT. A second one ends the process at once.
    pub stop: CancellationToken,
    /// Notified at each SIGHUP, to reload the keys that verify tokens.
    pub reload: Arc<Notify>,
}

impl Signals {
    /// Installs the signal handlers. Without `reload_on_hangup`, SIGHUP keeps its default action and ends
    /// the process.
    pub fn install(reload_on_hangup: bool) -> anyhow::Result<Self> {
        let signals = Self::default();
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(cancel_on(terminate, interrupt, signals.stop.clone()));
        if reload_on_hangup {
            tokio::spawn(notify_on(signal(SignalKind::hangup())?, signals.reload.clone()));
        }
        Ok(signals)
    }
}

async fn cancel_on(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            warn!("second signal received: exiting now");
            std::process::exit(INTERRUPTED);
        }
        info!("shutdown requested; draining (send again to exit now)");
        stop.cancel();
    }
}

async fn notify_on(mut hangup: Signal, reload: Arc<Notify>) {
    while hangup.recv().await.is_some() {
        info!("SIGHUP received: reloading token keys");
        reload.notify_one();
    }
}
