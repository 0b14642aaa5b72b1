use std::sync::Arc;

use belfry_application::ports::{CloseReason, Device, SendError};
use belfry_application::push::Push;

use super::event_frame::EventFrame;
use super::namespace_socket::NamespaceSocket;
use crate::limits::Limit;
use crate::transport::EnqueueError;
use crate::wire::socket::EventTable;

const CLOSED: &str = "belfry_devices_closed_total";

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(CLOSED, "Devices that Belfry disconnected, by reason.");
}

/// A device that is connected through Socket.IO.
#[derive(Debug)]
pub struct SocketIoDevice {
    socket: NamespaceSocket,
    /// The names and shapes of events.
    events: Arc<EventTable>,
}

impl SocketIoDevice {
    /// The device at the other end of the socket. All devices of a server share `events`.
    pub fn new(socket: NamespaceSocket, events: Arc<EventTable>) -> Self {
        Self { socket, events }
    }

    pub(crate) fn socket(&self) -> &NamespaceSocket {
        &self.socket
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
        let namespace = self.socket.namespace();
        let encoded = frames.iter().flat_map(|frame| frame.in_namespace(namespace, &self.events));
        self.socket.send(encoded).map_err(|error| match error {
            EnqueueError::Full => SendError::Full,
            EnqueueError::Closed => SendError::Closed,
        })
    }

    /// The number of bytes that wait to be sent.
    fn queued(&self) -> usize {
        self.socket.queued_bytes()
    }

    fn close(&self, why: CloseReason) {
        // Client libraries reconnect after their transport closes, but not after a Socket.IO disconnect.
        let is_closed = if !why.should_reconnect() {
            self.socket.disconnect(why.as_str())
        } else if why == CloseReason::TooSlow {
            self.socket.abort_transport()
        } else {
            self.socket.close_transport()
        };
        if !is_closed {
            return;
        }
        match why {
            CloseReason::TooManySessions => Limit::SessionsPerUser.record_exceeded(),
            CloseReason::TooSlow => Limit::SendQueue.record_exceeded(),
            _ => {}
        }
        metrics::counter!(CLOSED, "reason" => why.as_str()).increment(1);
    }
}
