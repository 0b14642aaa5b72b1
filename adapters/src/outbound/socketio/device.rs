use belfry_application::ports::{CloseReason, Device, SendError};
use belfry_application::push::Push;

use super::event_frame::EventFrame;
use super::namespace_socket::NamespaceSocket;
use crate::limits::Limit;
use crate::transport::EnqueueError;

/// A device that is connected through Socket.IO.
#[derive(Debug)]
pub struct SocketIoDevice(NamespaceSocket);

impl SocketIoDevice {
    /// The device of that socket.
    pub fn new(socket: NamespaceSocket) -> Self {
        Self(socket)
    }

    pub(crate) fn socket(&self) -> &NamespaceSocket {
        &self.0
    }
}

impl Device for SocketIoDevice {
    type Frame = EventFrame;

    fn frame(push: &Push) -> EventFrame {
        EventFrame::of(push)
    }

    fn send(&self, frame: &EventFrame) -> Result<(), SendError> {
        self.send_all(std::slice::from_ref(frame))
    }

    fn send_all(&self, frames: &[EventFrame]) -> Result<(), SendError> {
        let encoded = frames.iter().map(|frame| frame.in_namespace(self.0.namespace()));
        self.0.send(encoded).map_err(|error| match error {
            EnqueueError::Full => SendError::Full,
            EnqueueError::Closed => SendError::Closed,
        })
    }

    /// In bytes.
    fn queued(&self) -> usize {
        self.0.queued_bytes()
    }

    fn close(&self, why: CloseReason) {
        // Client libraries reconnect after their transport closes, but not after a Socket.IO disconnect.
        let is_closed = if !why.should_reconnect() {
            self.0.disconnect(why.as_str())
        } else if why == CloseReason::TooSlow {
            self.0.abort_transport()
        } else {
            self.0.close_transport()
        };
        if !is_closed {
            return;
        }
        match why {
            CloseReason::TooManySessions => Limit::SessionsPerUser.record_exceeded(),
            CloseReason::TooSlow => Limit::SendQueue.record_exceeded(),
            _ => {}
        }
        metrics::counter!("belfry_devices_closed_total", "reason" => why.as_str()).increment(1);
    }
}
