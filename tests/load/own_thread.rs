//! Work on separate threads, some of which yield to all others.

use std::fs;
use std::io;
use std::sync::Once;
use std::thread::{self, JoinHandle};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio_util::sync::CancellationToken;

/// Linux runs a thread with this policy only when no other thread wants to run (sched(7)). A thread with only a low
/// priority would first finish its time slice.
const IDLE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);

const AUTOGROUP_WARNING: &str = "kernel.sched_autogroup_enabled is 1: the clients yield only to processes of this \
     session, and other processes may wait for them";

/// `Some(true)` if the kernel first divides the cores among process sessions, and then each share among the
/// threads of the session (sched(7), "The autogroup feature"). A thread then yields only within its session,
/// but each PostgreSQL process is a session of its own. `None` if the kernel does not have the feature.
pub(crate) fn autogroup_enabled() -> Option<bool> {
    let value = fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled").ok()?;
    Some(value.trim() == "1")
}

/// Work on a thread and a runtime of its own. Dropping this stops both.
#[derive(Debug)]
pub(crate) struct OwnThread {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl OwnThread {
    /// Starts the thread. It calls `work`, and runs the returned future and its spawned tasks.
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

    /// Like [`start`](Self::start), on a thread that yields to all others. This is for clients that would run
    /// on other machines, so that their CPU time does not slow down the server.
    pub(crate) fn start_yielding<W: Future<Output = ()>>(
        name: String,
        work: impl FnOnce() -> W + Send + 'static,
    ) -> io::Result<Self> {
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            if autogroup_enabled() == Some(true) {
                eprintln!("{AUTOGROUP_WARNING}");
            }
        });
        Self::start(name, move || {
            // If this fails, the results are only less accurate.
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
