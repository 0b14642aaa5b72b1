//! The Socket.IO server: devices connect, are authenticated and send messages.
//!
//! It has three layers. Each lower layer defines a trait that the layer above implements:
//!
//! - [`engine`]: Engine.IO, sessions over WebSockets and HTTP long-polling. It passes messages to an
//!   [`EngineHandler`](engine::EngineHandler).
//! - [`protocol`]: Socket.IO, namespaces, events and acknowledgements in these messages. It passes connects and
//!   events to a [`NamespaceHandler`](protocol::NamespaceHandler).
//! - `ConnectHandler`: Belfry's own layer. It creates a [`Session`](belfry_application::session::Session) for each
//!   client in a namespace. The session has the rules of authentication, catch-up and expiry.
//!
//! Packets to devices are sent through [`outbound::socketio`](crate::outbound::socketio).

mod connect_handler;
mod credentials;
mod device_session;
pub mod engine;
mod forward_messages;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake_limits;
mod inbox_messages;
mod message_limiter;
mod messages;
mod outage;
mod parts;
mod payload;
pub mod protocol;
mod reply;
mod server;
mod settings;

pub(crate) use connect_handler::describe_metrics;
pub use parts::{InboxUseCases, SocketIoParts, SocketUseCases};
pub use server::SocketIoServer;
pub use settings::SocketIoSettings;
