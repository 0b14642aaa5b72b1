use std::sync::Arc;

use belfry_application::announcement::Push;
use belfry_application::ports::{CloseReason, Device, Unsent};
use socketioxide::extract::SocketRef;
use socketioxide::{SendError, SocketError};
use tracing::error;

use crate::limits::Limit;
use crate::transport::{LastWord, Transports};
use crate::wire::PushForm;

/// A device that is connected by Socket.IO.
pub struct SocketIoDevice {
    socket: SocketRef,
    transports: Arc<Transports>,
}

impl SocketIoDevice {
    /// The device at the other end of that socket.
    pub fn new(socket: SocketRef, transports: Arc<Transports>) -> Self {
        Self { socket, transports }
    }
}

impl Device for SocketIoDevice {
    type Frame = PushForm;

    fn frame(push: &Push) -> PushForm {
        PushForm::from(push)
    }

    fn send(&self, frame: &PushForm) -> Result<(), Unsent> {
        match self.socket.emit(frame.event, &frame.payload) {
            Ok(()) => Ok(()),
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Err(Unsent::Full),
            Err(SendError::Socket(SocketError::Closed)) => Err(Unsent::Closed),
            Err(SendError::Serialize(error)) => {
                // JSON that was encoded before always is again; were it not, nobody could be told.
                error!(%error, event = frame.event, "a push cannot be encoded");
                Ok(())
            }
        }
    }

    fn close(&self, why: CloseReason) {
        if why == CloseReason::TooManySessions {
            Limit::SessionsPerUser.hit();
        }
        metrics::counter!("belfry_devices_closed_total", "reason" => why.as_str()).increment(1);
        // Client libraries come back by themselves when a transport breaks, and stay away when the
        // server disconnects them.
        if why.asks_back() || self.socket.clone().disconnect().is_err() {
            self.transports.close(&self.socket);
        } else {
            self.transports.close_after(LastWord::Disconnect, &self.socket);
        }
    }
}
