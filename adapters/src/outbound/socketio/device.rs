use std::sync::{Arc, OnceLock};

use belfry_application::announcement::Push;
use belfry_application::ports::{CloseReason, Device, Unsent};
use socketioxide::extract::SocketRef;
use socketioxide::{SendError, SocketError};
use tracing::error;

use super::frame::{EventFrame, Namespace};
use crate::limits::Limit;
use crate::transport::{LastWord, NotTaken, Outlet, Transports};

/// A device that is connected by Socket.IO.
pub struct SocketIoDevice {
    socket: SocketRef,
    namespace: Namespace,
    transports: Arc<Transports>,
    /// Its WebSocket, once it is known to have one.
    outlet: OnceLock<Outlet>,
}

impl SocketIoDevice {
    /// The device at the other end of that socket.
    pub fn new(socket: SocketRef, transports: Arc<Transports>) -> Self {
        // It is in one of them, or would not be connected.
        let namespace = Namespace::of(socket.ns()).unwrap_or(Namespace::Root);
        Self { socket, namespace, transports, outlet: OnceLock::new() }
    }

    fn outlet(&self) -> Option<&Outlet> {
        if self.outlet.get().is_none() {
            // `None` while it polls.
            let outlet = self.transports.outlet_of(&self.socket)?;
            let _ = self.outlet.set(outlet);
        }
        self.outlet.get()
    }

    /// Queues a frame with the library, which writes it when it comes to it.
    fn queue(&self, frame: &EventFrame) -> Result<(), Unsent> {
        match self.socket.emit(frame.event(), frame.payload()) {
            Ok(()) => Ok(()),
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Err(Unsent::Full),
            Err(SendError::Socket(SocketError::Closed)) => Err(Unsent::Closed),
            Err(SendError::Serialize(error)) => {
                // JSON that was encoded before always is again; were it not, nobody could be told.
                error!(%error, event = frame.event(), "a push cannot be encoded");
                Ok(())
            }
        }
    }
}

impl Device for SocketIoDevice {
    type Frame = EventFrame;

    fn frame(push: &Push) -> EventFrame {
        EventFrame::of(push)
    }

    fn send(&self, frame: &EventFrame) -> Result<(), Unsent> {
        self.send_all(std::slice::from_ref(frame))
    }

    fn send_all(&self, frames: &[EventFrame]) -> Result<(), Unsent> {
        let Some(outlet) = self.outlet() else {
            return frames.iter().try_for_each(|frame| self.queue(frame));
        };
        let encoded = frames.iter().map(|frame| frame.on_websocket(self.namespace));
        match outlet.write(encoded.clone()) {
            Ok(()) => Ok(()),
            Err(NotTaken::Full) => Err(Unsent::Full),
            Err(NotTaken::Closed) => Err(Unsent::Closed),
            Err(NotTaken::NotYet) => outlet.by_library(encoded, |place| self.queue(&frames[place])),
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
