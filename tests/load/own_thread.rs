//! Work that keeps out of the way of everything else.

use std::fs;
use std::io;
use std::sync::Once;
use std::thread::{self, JoinHandle};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio_util::sync::CancellationToken;

/// Linux has whoever is of this policy wait for everybody else (sched(7)); a low priority alone would let
/// it finish its slice first.
const IDLE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);

const ONLY_WITHIN_A_SESSION: &str = "clients that should give way to everybody do so within this session only, \
     as kernel.sched_autogroup_enabled is 1: others wait for them";

/// Whether the kernel divides the cores among sessions first (sched(7), "The autogroup feature"). Whoever
/// gives way does so within its own then, while each of PostgreSQL's processes is one for itself. `None` where
/// there is no such thing.
pub(crate) fn sessions_are_groups() -> Option<bool> {
    let set = fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled").ok()?;
    Some(set.trim() == "1")
}

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
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            if sessions_are_groups() == Some(true) {
                eprintln!("{ONLY_WITHIN_A_SESSION}");
            }
        });
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
