use crate::port_error::PortError;
use crate::ports::CloseReason;

/// Why a device did not receive the changes it missed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A replay to this device is in progress.
    #[error("the device is catching up already")]
    InProgress,
    /// The store could not be read.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The device does not read, or its connection is closed.
    #[error("the device does not read what it missed")]
    SendFailed,
    /// New events arrive faster than they can be sent to the device.
    #[error("the device falls behind faster than it catches up")]
    CannotKeepUp,
}

impl SyncError {
    pub(super) fn close_reason(&self) -> CloseReason {
        match self {
            Self::SendFailed | Self::CannotKeepUp => CloseReason::TooSlow,
            Self::InProgress | Self::Port(_) => CloseReason::NotCaughtUp,
        }
    }
}
