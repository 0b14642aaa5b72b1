//! Unix signals: shutdown on SIGTERM or SIGINT, reload on SIGHUP.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// 128 + SIGINT: the exit code that shells report for an interrupted process.
const INTERRUPTED: i32 = 130;

/// What signals ask the server to do.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Cancelled at the first SIGTERM or SIGINT. A second one ends the process at once.
    pub stop: CancellationToken,
    /// Notified at each SIGHUP: the keys of tokens are to be reloaded.
    pub reload: Arc<Notify>,
}

impl Signals {
    /// Installs the signal handlers. Without `reload`, SIGHUP keeps its default action and ends the
    /// process.
    pub fn install(reload: bool) -> anyhow::Result<Self> {
        let signals = Self::default();
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(cancel_on(terminate, interrupt, signals.stop.clone()));
        if reload {
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
