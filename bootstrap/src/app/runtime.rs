//! What the process is doing now, for those who look into a running one.

use std::sync::Arc;

use belfry_adapters::outbound::socketio::SocketIoSessions;
use belfry_adapters::transport::{OpenConnections, Server};
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// Where to look.
#[derive(Clone)]
pub(super) struct Runtime {
    pub(super) public: OpenConnections,
    admin: OpenConnections,
    pub(super) sessions: Arc<SocketIoSessions>,
}

impl Runtime {
    pub(super) fn new(public: &Server, admin: &Server, sessions: Arc<SocketIoSessions>) -> Self {
        let (public, admin) = (public.open_connections(), admin.open_connections());
        Self { public, admin, sessions }
    }

    /// To be asked within the runtime that it tells of.
    pub(super) fn report(&self) -> Value {
        let tokio = Handle::current().metrics();
        json!({
            "workers": tokio.num_workers(),
            "tasks": tokio.num_alive_tasks(),
            "queuedTasks": tokio.global_queue_depth(),
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
