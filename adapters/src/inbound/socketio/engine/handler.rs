use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::Request;
use tokio::time::Instant;

use crate::outbound::socketio::PacketSender;

/// The protocol on top of Engine.IO.
pub trait EngineService: Send + Sync + 'static {
    /// Data from the request that opens a session.
    type Request: Send + 'static;
    /// The service's part of one session.
    type Handler: EngineHandler;

    /// Reads the request that opens a session.
    fn read_request(&self, request: &Request<Body>) -> Self::Request;

    /// Creates the handler of a session. Called when `request` has opened it.
    fn open(&self, request: Self::Request, sender: Arc<PacketSender>) -> Self::Handler;
}

/// The service's part of one session. It is dropped when the session ends.
pub trait EngineHandler: Send + 'static {
    /// Receives a message of the client.
    fn receive(&mut self, message: EngineMessage) -> Result<Received, Violation>;

    /// Ready when another message may be received. A handler that is not ready must wake the session's task later.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The time at which [`on_deadline`](Self::on_deadline) must be called; `None` for never. The session reads it
    /// again before the call, so it may change.
    fn deadline(&self) -> Option<Instant>;

    /// Called when the deadline has passed. An error ends the session.
    fn on_deadline(&mut self) -> Result<(), Violation>;

    /// Called when the client did not answer a ping in time. With `has_backlog`, it also left packets unread.
    fn on_ping_timeout(&self, has_backlog: bool);
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are sufficient")]
pub enum EngineMessage {
    Text(String),
    Binary(Vec<u8>),
}

/// The kind of a received message. It determines whether the handler or the session limits the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// An event. The handler limits the rate of events itself.
    Event,
    /// Anything else, such as a CONNECT, a ping, an acknowledgement or a fragment. The session limits its rate.
    Control,
}

/// The client violated the protocol or missed a deadline. Its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation;
