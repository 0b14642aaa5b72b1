//! When to read again what may have changed: the signal that says so.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::info;

/// Is notified at each SIGHUP. Several at once are one.
pub fn on_signals() -> anyhow::Result<Arc<Notify>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let reload = Arc::new(Notify::new());
    let told = reload.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!("told to read the keys for tokens again");
            told.notify_one();
        }
    });
    Ok(reload)
}
