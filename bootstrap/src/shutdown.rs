//! When to stop: the signals that say so.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Cancels the token at the first SIGTERM or SIGINT. A second one ends the process at once.
pub fn on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                warn!("told again: gone");
                // 128 + SIGINT, as shells have it for a process that was interrupted.
                std::process::exit(130);
            }
            info!("told to stop: finishing what is under way (once more ends at once)");
            stop.cancel();
        }
    });
    Ok(())
}
