//! The state of the process, for `/debug/runtime` and the gauges.

use std::sync::Arc;

use belfry_adapters::outbound::socketio::SocketIoSessions;
use belfry_adapters::transport::OpenConnections;
use serde_json::{Value, json};
use tokio::runtime::{Handle, RuntimeMetrics};

use super::listening::Listeners;

/// The sources of the figures about the process.
#[derive(Clone)]
pub(super) struct ProcessStats {
    runtimes: [Handle; 2],
    pub(super) public_connections: OpenConnections,
    admin_connections: OpenConnections,
    pub(super) sessions: Arc<SocketIoSessions>,
}

impl ProcessStats {
    /// `runtimes` are all runtimes of the process: one runs the connections, the other the events.
    pub(super) fn new(
        runtimes: [Handle; 2],
        listeners: &Listeners,
        sessions: &Arc<SocketIoSessions>,
    ) -> Self {
        Self {
            runtimes,
            public_connections: listeners.public.open_connections(),
            admin_connections: listeners.admin.open_connections(),
            sessions: sessions.clone(),
        }
    }

    /// The body of `/debug/runtime`.
    pub(super) fn report(&self) -> Value {
        let sum = |figure: fn(&RuntimeMetrics) -> usize| {
            self.runtimes.iter().map(|runtime| figure(&runtime.metrics())).sum::<usize>()
        };
        json!({
            "workers": sum(RuntimeMetrics::num_workers),
            "tasks": sum(RuntimeMetrics::num_alive_tasks),
            "queuedTasks": sum(RuntimeMetrics::global_queue_depth),
            "residentBytes": resident_bytes(),
            "connections": {
                "public": self.public_connections.count(),
                "admin": self.admin_connections.count(),
            },
            "sessions": self.sessions.count(),
        })
    }
}

/// Resident memory (`VmRSS` in proc(5)); `None` on systems without that file.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
