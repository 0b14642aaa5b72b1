//! What is sent to devices by Socket.IO: events to a user's room, packets to one session.

mod device;
mod event_frame;
mod namespace;
mod namespace_socket;
mod packet_sender;
#[cfg(feature = "pieces")]
pub(crate) mod pieces;
mod poll_queue;
mod realtime_delivery;

pub use device::SocketIoDevice;
pub use event_frame::EventFrame;
pub use namespace::Namespace;
pub use namespace_socket::{Arguments, NamespaceSocket};
pub use packet_sender::PacketSender;
pub(crate) use packet_sender::{ConnectId, SessionPhase};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use poll_queue::fuzzing;
pub(crate) use poll_queue::{PollResponse, RequestTag};
pub use realtime_delivery::SocketIoDelivery;

/// The sessions of devices that are connected by Socket.IO.
pub type SocketIoSessions = belfry_application::session::Sessions<SocketIoDevice>;
