//! Work that keeps out of the way of everything else.

use std::io;
use std::thread::{self, JoinHandle};

use tokio_util::sync::CancellationToken;

/// Work on a thread and a runtime of its own. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct OwnThread {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl OwnThread {
    /// Starts the thread, which calls `work` and drives what it gives, and what that spawns.
    pub(crate) fn start<W: Future<Output = ()>>(
        name: String,
        work: impl FnOnce() -> W + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async { stopped.run_until_cancelled(work()).await });
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
