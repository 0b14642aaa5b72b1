use crate::push::Push;

/// One device's open connection, as the rules of a session see it.
///
/// Nothing here waits: a device that does not read costs the node its queue and nobody else
/// anything.
pub trait Device: Send + Sync + 'static {
    /// A push, ready to be written: made once and sent to every device of a user.
    type Frame: Send + Sync + 'static;

    /// Encodes a push.
    fn frame(push: &Push) -> Self::Frame;

    /// Queues a frame behind those queued before. `Ok` means queued, not received.
    fn send(&self, frame: &Self::Frame) -> Result<(), SendError>;

    /// Queues frames as one, in their order, as cheaply as the transport can. Where not all are taken,
    /// some may have been.
    fn send_all(&self, frames: &[Self::Frame]) -> Result<(), SendError> {
        frames.iter().try_for_each(|frame| self.send(frame))
    }

    /// The length of its send queue: how much of what was queued is not yet handed to the network. The
    /// unit is the transport's own (bytes or frames). It is 0 once everything is handed over or the
    /// connection is gone, and it falls whenever the device reads, however slowly: a replay reads its
    /// next page from the store when it is 0, and takes a device for stuck that leaves it unchanged for
    /// too long.
    fn queued(&self) -> usize;

    /// Closes the connection, transport and all. What is queued is written first if the device
    /// takes it at once. Closing what is closed does nothing.
    fn close(&self, why: CloseReason);
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The device reads slower than it is told: its queue is full.
    Full,
    /// The connection is gone.
    Closed,
}

/// Why a connection is closed, as metrics and logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Its token has ended.
    TokenExpired,
    /// Its token was revoked.
    TokenRevoked,
    /// It did not read what it was told.
    TooSlow,
    /// Its user has as many sessions as may be, and this is the oldest.
    TooManySessions,
    /// It went on sending more messages than it may.
    TooManyMessages,
    /// What it missed could not be read; it should come back later.
    NotCaughtUp,
    /// This node goes; it should come back to another.
    ShuttingDown,
}

impl CloseReason {
    /// The reason's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::TooSlow => "too_slow",
            Self::TooManySessions => "too_many_sessions",
            Self::TooManyMessages => "too_many_messages",
            Self::NotCaughtUp => "not_caught_up",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Whether a device should come back by itself. One whose token holds no more needs another
    /// first; one of too many would push out the next, and that one it; one that sends too much
    /// would go on.
    pub const fn should_reconnect(self) -> bool {
        !matches!(
            self,
            Self::TokenExpired | Self::TokenRevoked | Self::TooManySessions | Self::TooManyMessages
        )
    }
}
