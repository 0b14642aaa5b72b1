//! Work that keeps out of the way of everything else.

use std::io;
use std::thread::{self, JoinHandle};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio_util::sync::CancellationToken;

/// Linux has whoever is of this policy wait for everybody else (sched(7)); a low priority alone would let
/// it finish its slice first.
const IDLE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);

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

    /// The same on a thread that gives way to every other one: whoever it plays is elsewhere, and what it
    /// would take away from others on this machine is none of what it makes a server do.
    pub(crate) fn start_aside<W: Future<Output = ()>>(
        name: String,
        work: impl FnOnce() -> W + Send + 'static,
    ) -> io::Result<Self> {
        Self::start(name, move || {
            // If it cannot be done, the figures are worse.
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, IDLE);
            work()
        })
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
