//! Bytes, frames and connections: a [`Listener`] and a [`Server`] accept connections within limits. A connection
//! may become a WebSocket, and any task may write to it. Nothing here knows the protocols on top.

mod admission;
mod client_address;
mod connection;
mod first_head;
mod frame_reader;
mod frame_writer;
mod frames;
mod head_timeout;
mod listener;
mod server;
mod stream;
mod tls;
mod websocket;

pub use admission::ConnectionLimits;
pub use client_address::{ClientAddress, InvalidProxy, TrustedProxies};
pub use connection::Peer;
pub use listener::{InvalidListenAddress, ListenAddress, Listener, TcpSettings};
pub use server::{OpenConnections, Server, ServerSettings};
pub use tls::{InvalidTls, Tls, TlsFiles};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use frame_reader::fuzzing;
pub(crate) use frame_reader::{Frame, ReadError};
pub use frame_writer::NotSent;
pub(crate) use frame_writer::{FrameWriter, Queued, SendLimits, WebSocketReader};
pub(crate) use frames::{Payload, binary_frame, close_frame, payload_of, pong_frame, text_frame};
pub(crate) use websocket::{InvalidOpening, Opening};
