use std::sync::{Arc, OnceLock};

use belfry_application::announcement::Push;
use belfry_application::ports::{CloseReason, Device, Unsent};
use socketioxide::extract::SocketRef;
use socketioxide::{SendError, SocketError};
use tracing::error;

use super::frame::{EventFrame, Namespace};
use crate::limits::Limit;
use crate::transport::{LastWord, NotTaken, Outlet, Transports, text_frame};

/// A device that is connected by Socket.IO.
pub struct SocketIoDevice {
    namespace: Namespace,
    way: Way,
}

/// How it is spoken to.
enum Way {
    /// By its WebSocket, which is ours alone.
    Direct(Outlet),
    /// By the library, as it polls or has begun so.
    Library(ByLibrary),
}

struct ByLibrary {
    socket: SocketRef,
    transports: Arc<Transports>,
    /// Its WebSocket, once it is known to have one.
    outlet: OnceLock<Outlet>,
}

impl SocketIoDevice {
    /// The device at the other end of that socket of the library's.
    pub(crate) fn by_library(socket: SocketRef, transports: Arc<Transports>) -> Self {
        // It is in one of them, or would not be connected.
        let namespace = Namespace::of(socket.ns()).unwrap_or(Namespace::Root);
        let way = Way::Library(ByLibrary { socket, transports, outlet: OnceLock::new() });
        Self { namespace, way }
    }

    /// The device at the other end of that WebSocket, to which nobody writes but by outlets.
    pub(crate) fn direct(outlet: Outlet, namespace: Namespace) -> Self {
        Self { namespace, way: Way::Direct(outlet) }
    }
}

impl ByLibrary {
    fn outlet(&self) -> Option<&Outlet> {
        if self.outlet.get().is_none() {
            // `None` while it polls.
            let outlet = self.transports.outlet_of(&self.socket)?;
            let _ = self.outlet.set(outlet);
        }
        self.outlet.get()
    }

    fn send_all(&self, frames: &[EventFrame], namespace: Namespace) -> Result<(), Unsent> {
        let Some(outlet) = self.outlet() else {
            return frames.iter().try_for_each(|frame| self.queue(frame));
        };
        let encoded = frames.iter().map(|frame| frame.on_websocket(namespace));
        match outlet.write(encoded.clone()) {
            Err(NotTaken::NotYet) => outlet.by_library(encoded, |place| self.queue(&frames[place])),
            written => written.map_err(unsent),
        }
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

    fn close(&self, for_good: bool) {
        if for_good && self.socket.clone().disconnect().is_ok() {
            self.transports.close_after(LastWord::Disconnect, &self.socket);
        } else {
            self.transports.close(&self.socket);
        }
    }
}

fn unsent(not_taken: NotTaken) -> Unsent {
    match not_taken {
        // Where there is no library, nothing is left to it.
        NotTaken::Full | NotTaken::NotYet => Unsent::Full,
        NotTaken::Closed => Unsent::Closed,
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
        match &self.way {
            Way::Direct(outlet) => {
                let encoded = frames.iter().map(|frame| frame.on_websocket(self.namespace));
                outlet.write(encoded).map_err(unsent)
            }
            Way::Library(library) => library.send_all(frames, self.namespace),
        }
    }

    fn queued(&self) -> usize {
        0
    }

    fn close(&self, why: CloseReason) {
        if why == CloseReason::TooManySessions {
            Limit::SessionsPerUser.hit();
        }
        metrics::counter!("belfry_devices_closed_total", "reason" => why.as_str()).increment(1);
        // Client libraries come back by themselves when a transport breaks, and stay away when the
        // server disconnects them.
        let for_good = !why.asks_back();
        match &self.way {
            Way::Direct(outlet) if for_good => {
                outlet.say_last(&text_frame(&["41", self.namespace.in_packet()]));
            }
            Way::Direct(outlet) => outlet.hang_up_soon(),
            Way::Library(library) => library.close(for_good),
        }
    }
}
