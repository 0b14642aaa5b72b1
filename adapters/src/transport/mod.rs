//! How bytes travel: connections that are accepted within bounds ([`Listener`], [`Server`]) and can be cut
//! ([`Peer`]), and the Engine.IO sessions on top of them that can be ended ([`Transports`]). Doors let
//! devices in by these, and what delivers to a device closes it by them.

mod admission;
mod client_address;
mod connection;
mod engine_io;
mod first_head;
mod frame_reader;
mod frames;
mod head_timeout;
mod listener;
mod outlet;
mod paced;
mod server;
mod stream;
mod tls;
mod websocket;

pub use admission::ConnectionLimits;
pub use client_address::{ClientAddress, InvalidProxy, TrustedProxies};
pub use connection::Peer;
pub use engine_io::Transports;
pub use frames::LastWord;
pub use listener::{InvalidListenAddress, ListenAddress, Listener, TcpSettings};
pub use server::{OpenConnections, Server, ServerSettings};
pub use tls::{InvalidTls, Tls, TlsFiles};

pub(crate) use engine_io::{
    EngineService, is_event, is_for_websocket, lean, leanest, named_session, polled_session,
    posting_session,
};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use frame_reader::fuzzing;
pub(crate) use frame_reader::{FrameReader, Heard, Unreadable};
pub(crate) use frames::{close_frame, pong_frame, text_frame};
pub(crate) use outlet::{NotTaken, Outlet, ProtocolSide};
pub(crate) use paced::Paced;
pub(crate) use websocket::Opening;
