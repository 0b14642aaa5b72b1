//! How bytes travel: connections that are accepted within bounds ([`Listener`], [`Server`]) and can be cut
//! ([`Peer`]), and the Engine.IO sessions on top of them that can be ended ([`Transports`]). Doors let
//! devices in by these, and what delivers to a device closes it by them.

mod admission;
mod client_address;
mod connection;
mod engine_io;
mod head_timeout;
mod listener;
mod server;
mod tls;

pub use admission::ConnectionLimits;
pub use client_address::{ClientAddress, InvalidProxy, TrustedProxies};
pub use connection::Peer;
pub use engine_io::{LastWord, Transports};
pub use listener::{InvalidListenAddress, ListenAddress, Listener, TcpSettings};
pub use server::{OpenConnections, Server, ServerSettings};
pub use tls::{InvalidTls, Tls, TlsFiles};

pub(crate) use engine_io::{EngineService, lean, polled_session, posting_session};
