//! The Socket.IO server: devices connect, are authenticated, and send messages.
//!
//! Three layers, each with a trait that the next one implements:
//!
//! - [`engine`]: Engine.IO, which is sessions over WebSockets and HTTP long-polling. It hands messages to a
//!   [`Handler`](engine::Handler).
//! - [`protocol`]: Socket.IO, which is namespaces, events and acknowledgements in such messages. It hands connects
//!   and events to a [`NamespaceHandler`](protocol::NamespaceHandler).
//! - `ConnectHandler`: Belfry, which binds a namespace's client to a
//!   [`Session`](belfry_application::session::Session), where the rules of authentication, catch-up and expiry are.
//!
//! What is sent goes the other way through [`outbound::socketio`](crate::outbound::socketio).

mod connect_handler;
mod credentials;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake_limits;
mod message_limiter;
mod messages;
mod outage;
mod packet;
pub mod protocol;
mod reply;
mod server;
mod settings;
mod use_cases;

pub use packet::Event;
pub use server::{SocketIoParts, SocketIoServer};
pub use settings::SocketIoSettings;
pub use use_cases::SocketUseCases;
