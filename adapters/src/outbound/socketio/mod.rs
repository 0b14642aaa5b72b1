//! Sends to devices through Socket.IO: events to all sessions in a user's room, and packets to one session.

#[cfg(feature = "bench_support")]
pub(crate) mod bench_support;
mod device;
mod event_frame;
mod membership;
mod namespace;
mod namespace_socket;
mod packet_sender;
mod poll_queue;
mod realtime_delivery;

pub use device::SocketIoDevice;
pub(crate) use device::describe_metrics as describe_device_metrics;
pub use event_frame::EventFrame;
pub(crate) use membership::ConnectId;
pub(crate) use namespace::NamespaceMap;
pub use namespace::{InvalidNamespace, Namespace, NamespacePath, Namespaces, TooManyNamespaces};
pub use namespace_socket::{Arguments, NamespaceSocket, Refusal};
pub use packet_sender::PacketSender;
pub(crate) use packet_sender::SessionPhase;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use poll_queue::fuzzing;
pub(crate) use poll_queue::{PollResponse, RequestTag};
pub use realtime_delivery::SocketIoDelivery;
pub(crate) use realtime_delivery::describe_metrics as describe_delivery_metrics;

/// The sessions of devices that are connected through Socket.IO.
pub type SocketIoSessions = belfry_application::session::Sessions<SocketIoDevice>;
