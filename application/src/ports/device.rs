use crate::push::Push;

/// The connection of one device, as the session rules see it.
///
/// No method waits. A device that does not read costs the node only the memory of its send queue, and
/// delays no other device.
pub trait Device: Send + Sync + 'static {
    /// An encoded push. It is encoded once and sent to all devices of a user.
    type Frame: Send + Sync + 'static;

    /// Encodes a push.
    fn frame(push: &Push) -> Self::Frame;

    /// Appends a frame to the send queue. `Ok` means queued, not received.
    fn send(&self, frame: &Self::Frame) -> Result<(), SendError>;

    /// Appends several frames in their order, as cheaply as the transport can. After an error some of
    /// them may be queued.
    fn send_all(&self, frames: &[Self::Frame]) -> Result<(), SendError> {
        frames.iter().try_for_each(|frame| self.send(frame))
    }

    /// The length of the send queue: data that is not yet handed to the network, in bytes or
    /// frames, as the transport counts. It is 0 when everything is handed over or the connection is
    /// closed. It decreases whenever the device reads, however slowly.
    ///
    /// A replay reads its next page from the store when the length is 0. If the length does not change
    /// for too long, the replay considers the device stuck.
    fn queued(&self) -> usize;

    /// Closes the connection and its transport. Queued frames are written first if the device accepts
    /// them at once. Closing twice has no further effect.
    fn close(&self, why: CloseReason);
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The send queue is full: the device reads more slowly than frames are sent.
    Full,
    /// The connection is closed.
    Closed,
}

/// Why a connection is closed, as named in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The token expired.
    TokenExpired,
    /// The token was revoked.
    TokenRevoked,
    /// The key of the token is not accepted any more.
    KeyWithdrawn,
    /// The device did not read its pushes.
    TooSlow,
    /// The user reached the session limit, and this session is the oldest.
    TooManySessions,
    /// The device kept exceeding its message rate limit.
    TooManyMessages,
    /// The missed changes could not be replayed. The device should reconnect later.
    NotCaughtUp,
    /// The node shuts down. The device should reconnect to another node.
    ShuttingDown,
}

impl CloseReason {
    /// The label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::KeyWithdrawn => "key_withdrawn",
            Self::TooSlow => "too_slow",
            Self::TooManySessions => "too_many_sessions",
            Self::TooManyMessages => "too_many_messages",
            Self::NotCaughtUp => "not_caught_up",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Whether the device should reconnect by itself. It should not in these cases: A device with an invalid
    /// token needs a new token first. A session that was evicted because of the session limit would evict
    /// another one, which would do the same. A device that sends too many messages would continue to do so.
    pub const fn should_reconnect(self) -> bool {
        !matches!(
            self,
            Self::TokenExpired
                | Self::TokenRevoked
                | Self::KeyWithdrawn
                | Self::TooManySessions
                | Self::TooManyMessages
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_should_reconnect_unless_it_would_be_disconnected_again() {
        for (why, label, should_reconnect) in [
            (CloseReason::TokenExpired, "token_expired", false),
            (CloseReason::TokenRevoked, "token_revoked", false),
            (CloseReason::KeyWithdrawn, "key_withdrawn", false),
            (CloseReason::TooSlow, "too_slow", true),
            (CloseReason::TooManySessions, "too_many_sessions", false),
            (CloseReason::TooManyMessages, "too_many_messages", false),
            (CloseReason::NotCaughtUp, "not_caught_up", true),
            (CloseReason::ShuttingDown, "shutting_down", true),
        ] {
            assert_eq!(why.as_str(), label);
            assert_eq!(why.should_reconnect(), should_reconnect, "{label}");
        }
    }
}
