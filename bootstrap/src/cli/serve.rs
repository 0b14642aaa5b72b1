use tokio::runtime::Builder;

use super::output::print_line;
use crate::app::App;
use crate::config::Config;
use crate::signals::Signals;
use crate::telemetry;

/// Runs the server until a signal stops it.
pub(super) fn run(config: Config) -> anyhow::Result<()> {
    telemetry::init_logging(&config.log)?;
    // Events have a thread of their own, so that no push waits behind many new connections. One thread
    // is enough: a push is a system call, and a broker delivers fewer events than one thread can push.
    let events_runtime = threads("events", 1).build()?;
    let cores = std::thread::available_parallelism()?.get();
    let connections_runtime = threads("connections", cores.saturating_sub(1).max(1))
        .on_thread_start(lower_priority)
        .build()?;
    connections_runtime.block_on(async {
        // SIGHUP reloads keys. A development key is never reloaded, so SIGHUP keeps its default action: closing
        // the terminal ends the process.
        let signals = Signals::install(!config.auth.is_development())?;
        let app = App::build(config, signals, events_runtime.handle().clone()).await?;
        for line in app.startup_banner() {
            print_line(line)?;
        }
        app.run().await
    })
}

fn threads(name: &str, count: usize) -> Builder {
    let mut threads = Builder::new_multi_thread();
    threads.worker_threads(count).thread_name(name).enable_all();
    threads
}

/// Lowers the priority of the current connection thread, so that the event thread has precedence when the
/// CPU is saturated. A busy thread with a nice value of 5 gets a quarter of a core beside one with 0
/// (sched(7), "The nice value").
///
/// Only Linux has a nice value per thread.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(5) {
        tracing::debug!(%error, "cannot lower the priority of a connection thread");
    }
}
