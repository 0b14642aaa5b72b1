use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::Config;
use crate::{reload, shutdown, telemetry};

/// Serves until told to stop.
pub(super) fn run(config: Config) -> anyhow::Result<()> {
    telemetry::log(&config.log)?;
    // Events have a thread of their own, so that no push waits behind a crowd that comes in. One is
    // enough: a push is a system call, and a broker hands out fewer events than one thread can push.
    let events = threads("events", 1)?;
    let cores = std::thread::available_parallelism()?.get();
    threads("connections", cores.saturating_sub(1).max(1))?.block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signals(stop.clone())?;
        let reload = if config.auth.is_development() {
            // There is nothing to read again, and it should end with the terminal it was tried in.
            Arc::default()
        } else {
            reload::on_signals()?
        };
        let app = App::build(config).await?;
        for line in app.greeting() {
            super::say(&line)?;
        }
        app.run(events.handle(), reload, stop).await
    })
}

fn threads(name: &str, count: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(count).thread_name(name).enable_all().build()
}
