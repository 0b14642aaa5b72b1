//! Socket.IO (protocol version 5) on top of Engine.IO: namespaces, events and acknowledgements.

mod connection;
mod handler;
mod packet;
mod settings;
mod shared_socket;

pub use connection::{SocketIo, SocketIoConnection};
pub use handler::{ConnectError, ConnectRequest, NamespaceHandler};
pub use packet::ClientEvent;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use packet::{Packet, PacketKind};
pub use settings::ProtocolSettings;
