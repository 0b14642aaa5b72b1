use std::time::Duration;

/// Observes how long devices take to catch up with the changes that they missed.
pub trait CatchUpMonitor: Send + Sync {
    /// A device has received all changes that it missed, or was disconnected because it could not. `duration` is
    /// the time since the device, or the server, requested them.
    fn record(&self, cause: CatchUpCause, duration: Duration);
}

/// Why a device catches up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUpCause {
    /// It connected with the position of an earlier connection.
    Connect,
    /// It requested the changes while it was connected.
    Request,
    /// It missed an event while it was connected.
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
