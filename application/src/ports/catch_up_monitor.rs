use std::time::Duration;

/// Observes how long devices take to catch up with the changes that they missed.
pub trait CatchUpMonitor: Send + Sync {
    /// Records that a device has received all changes that it missed, or was disconnected because it could
    /// not receive them. `duration` is the time since the catch-up became necessary or was requested.
    fn record(&self, cause: CatchUpCause, duration: Duration);
}

/// Why a device catches up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUpCause {
    /// The device connected and sent the revision that it reached in an earlier connection.
    Connect,
    /// The device requested the changes while it was connected.
    Request,
    /// The device missed an event while it was connected.
    MissedEvent,
}

impl CatchUpCause {
    /// All causes.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Request, Self::MissedEvent];

    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Request => "request",
            Self::MissedEvent => "missed_event",
        }
    }
}
