//! Engine.IO (protocol version 4): sessions over WebSockets and over HTTP long-polling, and the upgrade from
//! one to the other.
//!
//! Every session has one task, whatever its transport. It receives packets, keeps the heartbeat
//! and hands messages to a [`Handler`]. All that is sent goes through the session's
//! [`PacketSender`], from whichever task has it.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod heartbeat;
mod packet;
mod polling;
mod request;
mod server;
mod session;
mod session_id;
mod upgrade;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::Request;
use tokio::time::Instant;

use crate::outbound::socketio::PacketSender;

pub use packet::Message;
pub(super) use request::{is_valid_opening, opens_session};
pub use server::EngineServer;

/// What is spoken on top of Engine.IO.
pub trait Service: Send + Sync + 'static {
    /// What is kept of the request that opens a session.
    type Request: Send + 'static;
    /// The service's part of one session.
    type Handler: Handler;

    /// Reads the request that opens a session.
    fn read_request(&self, request: &Request<Body>) -> Self::Request;

    /// A session was opened by that request.
    fn open(&self, request: Self::Request, sender: Arc<PacketSender>) -> Self::Handler;
}

/// The service's part of one session. It is dropped when the session ends.
pub trait Handler: Send + 'static {
    /// A message of the client.
    fn receive(&mut self, message: Message) -> Result<Received, Violation>;

    /// Ready when another message may be received. A handler that is not ready must see to it that the
    /// session's task is woken.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// When [`on_deadline`](Self::on_deadline) is to be called, unless the deadline has moved by then.
    fn deadline(&self) -> Option<Instant>;

    /// The deadline has passed. The session ends on an `Err`.
    fn on_deadline(&mut self) -> Result<(), Violation>;

    /// The client has not answered a ping in time. `has_backlog` tells whether it had not read what was
    /// sent before.
    fn on_ping_timeout(&self, has_backlog: bool);
}

/// How a message counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The handler limits the rate of such messages itself.
    Event,
    /// Anything else, such as CONNECTs, pings, acknowledgements and fragments: the session limits their rate.
    Control,
}

/// The client breaks the protocol, or does not do what it must do in time. Its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation;

/// How sessions are run.
#[derive(Debug, Clone, Copy)]
pub struct EngineSettings {
    /// How often a client is pinged.
    pub ping_interval: Duration,
    /// How long a client may take to answer.
    pub ping_timeout: Duration,
    /// How long an upgrade to a WebSocket may take. The session goes on by polling after that.
    pub upgrade_timeout: Duration,
    /// The largest message of a client, in bytes; by polling, the largest body of a request.
    pub max_payload: usize,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// How many packets are queued for a client that does not read.
    pub queue: usize,
    /// How many bytes are queued for a client that does not read.
    pub queue_bytes: usize,
    /// The most sessions that were opened by polling, including those that have since been upgraded.
    pub polling_sessions: usize,
}
