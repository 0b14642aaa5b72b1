//! Bytes, frames and connections: a [`Listener`] and a [`Server`] accept connections within limits. A connection
//! may become a WebSocket that any task can write to. This module knows no protocol above WebSockets.

mod client_address;
mod connection_limiter;
mod deferred_body;
mod frame_reader;
mod frame_writer;
mod frames;
mod head_timeout;
mod http_connection;
mod in_flight_request;
mod initial_request_head;
mod listener;
mod opening_handshake;
mod parked_response;
mod peer;
mod request_progress;
mod server;
mod server_state;
mod stream;
mod tls;

pub use client_address::{ClientAddress, InvalidProxy, TrustedProxies};
pub use connection_limiter::ConnectionLimits;
pub use listener::{InvalidListenAddress, ListenAddress, Listener, TcpSettings};
pub use peer::Peer;
pub use server::{OpenConnections, Server};
pub use server_state::ServerSettings;
pub(crate) use server_state::describe_metrics;
pub use tls::{InvalidTls, Tls, TlsFiles};

pub(crate) use deferred_body::DeferredBody;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use frame_reader::fuzzing;
pub(crate) use frame_reader::{Frame, ReadError};
pub use frame_writer::EnqueueError;
pub(crate) use frame_writer::{FrameWriter, Queued, SendLimits, WebSocketReader};
pub(crate) use frames::{Payload, binary_frame, close_frame, payload_of, pong_frame, text_frame};
pub(crate) use opening_handshake::{InvalidHandshake, OpeningHandshake};
