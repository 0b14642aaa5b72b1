//! What the process is doing now, for those who look into a running one.

use std::sync::Arc;

use belfry_adapters::outbound::socketio::SocketIoSessions;
use belfry_adapters::transport::{OpenConnections, Server};
use serde_json::{Value, json};
use tokio::runtime::{Handle, RuntimeMetrics};

/// Where to look.
#[derive(Clone)]
pub(super) struct Runtime {
    /// Those of the connections and of the events.
    threads: [Handle; 2],
    pub(super) public: OpenConnections,
    admin: OpenConnections,
    pub(super) sessions: Arc<SocketIoSessions>,
}

impl Runtime {
    pub(super) fn new(
        threads: [Handle; 2],
        public: &Server,
        admin: &Server,
        sessions: Arc<SocketIoSessions>,
    ) -> Self {
        let (public, admin) = (public.open_connections(), admin.open_connections());
        Self { threads, public, admin, sessions }
    }

    pub(super) fn report(&self) -> Value {
        let sum = |figure: fn(&RuntimeMetrics) -> usize| {
            self.threads.iter().map(|handle| figure(&handle.metrics())).sum::<usize>()
        };
        json!({
            "workers": sum(RuntimeMetrics::num_workers),
            "tasks": sum(RuntimeMetrics::num_alive_tasks),
            "queuedTasks": sum(RuntimeMetrics::global_queue_depth),
            "residentBytes": resident_bytes(),
            "connections": { "public": self.public.count(), "admin": self.admin.count() },
            "sessions": self.sessions.count(),
        })
    }
}

/// The memory that the process holds (`VmRSS`, see proc(5)); `None` where there is no such file.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
