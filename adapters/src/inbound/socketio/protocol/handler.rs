use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::value::RawValue;

use super::packet::ClientEvent;
use crate::outbound::socketio::{Arguments, NamespaceSocket};

/// The application on top of a Socket.IO server. It accepts clients into namespaces and processes their events.
pub trait NamespaceHandler: Send + Sync + 'static {
    /// Data from the request that opened a client's transport.
    type Request: Send + Sync + 'static;
    /// A client's membership in one namespace.
    type Session: Send + Sync + 'static;

    /// Reads the request that opens a transport.
    fn read_request(&self, request: &Request<Body>) -> Self::Request;

    /// Accepts or rejects a client that connects to a namespace. Events can be sent to the client only after this
    /// has returned. [`disconnected`](Self::disconnected) is called for every returned session, even if the client
    /// leaves the namespace or connects again before it receives the response.
    fn connect(
        &self,
        connect: ConnectRequest<'_, Self::Request>,
    ) -> impl Future<Output = Result<Arc<Self::Session>, ConnectError>> + Send;

    /// The response to the CONNECT has been sent.
    fn connected(&self, session: Arc<Self::Session>) -> impl Future<Output = ()> + Send;

    /// The client sent an event.
    fn receive(
        &self,
        session: Arc<Self::Session>,
        event: ClientEvent,
    ) -> impl Future<Output = ()> + Send;

    /// The client acknowledged the server's event with that id.
    fn acknowledged(&self, session: &Arc<Self::Session>, id: u64, arguments: Arguments);

    /// The client has left the namespace, or its transport has closed.
    fn disconnected(&self, session: &Self::Session);

    /// The client does not read: a ping timed out while packets were queued. The session ends after this call.
    fn too_slow(&self, session: &Self::Session);
}

/// A client's request to connect to a namespace.
pub struct ConnectRequest<'a, R> {
    /// Data from the request that opened the client's transport.
    pub request: &'a R,
    /// The `auth` payload, not parsed yet; null if there is none.
    pub auth: Box<RawValue>,
    /// The handle to send to the client, usable once it is connected.
    pub socket: NamespaceSocket,
}

/// Why a client is not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// The client receives a `connect_error` with this code. Client libraries do not reconnect after it.
    Rejected(&'static str),
    /// Like `Rejected`, with a sentence about the reason in the data of the `connect_error`.
    RejectedBecause(&'static str, String),
    /// The transport is closed without a packet. Client libraries reconnect after that.
    Unavailable,
}
