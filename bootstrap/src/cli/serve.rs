use std::sync::Arc;

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::Config;
use crate::{reload, shutdown, telemetry};

/// Serves until told to stop.
pub(super) fn run(config: Config) -> anyhow::Result<()> {
    telemetry::log(&config.log)?;
    // Events have a thread of their own, so that no push waits behind a crowd that comes in. One is
    // enough: a push is a system call, and a broker hands out fewer events than one thread can push.
    let events = threads("events", 1).build()?;
    let cores = std::thread::available_parallelism()?.get();
    let connections =
        threads("connections", cores.saturating_sub(1).max(1)).on_thread_start(give_way).build()?;
    connections.block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signals(stop.clone())?;
        let reload = if config.auth.is_development() {
            // There is nothing to read again, and it should end with the terminal it was tried in.
            Arc::default()
        } else {
            reload::on_signals()?
        };
        let app = App::build(config, events.handle().clone()).await?;
        for line in app.greeting() {
            super::say(&line)?;
        }
        app.run(reload, stop).await
    })
}

fn threads(name: &str, count: usize) -> Builder {
    let mut threads = Builder::new_multi_thread();
    threads.worker_threads(count).thread_name(name).enable_all();
    threads
}

/// Where there is not enough for all, those go first who tell, store and pass on. Five steps leave a busy
/// thread a quarter of a core beside one that gives way to nobody (sched(7), "The nice value").
///
/// Only on Linux a thread has a nice value of its own.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(5) {
        tracing::debug!(%error, "connections do not give way to events");
    }
}
