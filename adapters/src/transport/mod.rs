//! How bytes travel: connections that can be cut ([`Listener`], [`Peer`]), and the Engine.IO sessions
//! on top of them that can be ended ([`Transports`]). Doors let devices in by these, and what delivers
//! to a device closes it by them.

mod address;
mod engine_io;
mod listener;

pub use engine_io::{LastWord, Transports};
pub use listener::{Connection, Listener, Peer, TcpSettings};

pub(crate) use address::client_address;
pub(crate) use engine_io::{EngineService, lean, polled_session};
