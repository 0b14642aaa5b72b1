//! Socket.IO (protocol version 5) on top of Engine.IO: namespaces, events and acknowledgements.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::engine::{Handler, Message, Received, Service, Violation};
use super::packet::{self, Event, MAX_ATTACHMENTS, Packet, PacketKind};
use crate::outbound::socketio::{Arguments, ConnectId, Namespace, NamespaceSocket, PacketSender};
use crate::transport::text_frame;

/// What a server does for the clients that connect to its namespaces.
pub trait NamespaceHandler: Send + Sync + 'static {
    /// What is kept of the request that opened a client's transport.
    type Request: Send + Sync + 'static;
    /// A client's membership in one namespace.
    type Session: Send + Sync + 'static;

    /// Reads the request that opens a transport.
    fn read_request(&self, request: &Request<Body>) -> Self::Request;

    /// A client wants to connect. It learns of the outcome afterwards; until then nothing can be sent to it.
    /// [`disconnected`](Self::disconnected) is called for every session, also for one that the client never
    /// learns of because it has left or connected anew.
    fn connect(
        &self,
        connect: ConnectRequest<'_, Self::Request>,
    ) -> impl Future<Output = Result<Arc<Self::Session>, ConnectError>> + Send;

    /// The client was told that it is connected.
    fn connected(&self, session: Arc<Self::Session>) -> impl Future<Output = ()> + Send;

    /// The client sent an event.
    fn receive(&self, session: Arc<Self::Session>, event: Event)
    -> impl Future<Output = ()> + Send;

    /// The client acknowledges an event that the server sent it with that id.
    fn acknowledged(&self, session: &Arc<Self::Session>, id: u64, answer: Arguments);

    /// The client has left the namespace, or is gone.
    fn disconnected(&self, session: &Self::Session);

    /// The client does not read: a ping timed out while packets were queued for it. The session ends right after
    /// this call.
    fn too_slow(&self, session: &Self::Session);
}

/// A client's wish to connect to a namespace.
pub struct ConnectRequest<'a, R> {
    /// What was kept of the request that opened its transport.
    pub request: &'a R,
    /// Its `auth` payload; null where there is none.
    pub auth: Value,
    /// The handle to send to the client, usable once it is connected.
    pub socket: NamespaceSocket,
}

/// Why a client is not connected, and so what it learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// It gets a `connect_error` with this code, after which client libraries stay away.
    Rejected(&'static str),
    /// Its transport is closed without a word, after which client libraries try again.
    Unavailable,
}

/// Socket.IO as a service of Engine.IO.
pub struct SocketIo<H> {
    handler: Arc<H>,
    connect_timeout: Duration,
}

impl<H> SocketIo<H> {
    /// With that handler. A transport may be in no namespace for as long as `connect_timeout`.
    pub fn new(handler: Arc<H>, connect_timeout: Duration) -> Self {
        Self { handler, connect_timeout }
    }

    pub(super) fn handler(&self) -> &H {
        &self.handler
    }
}

impl<H: NamespaceHandler> Service for SocketIo<H> {
    type Request = H::Request;
    type Handler = Connection<H>;

    fn read_request(&self, request: &Request<Body>) -> H::Request {
        self.handler.read_request(request)
    }

    fn open(&self, request: H::Request, sender: Arc<PacketSender>) -> Connection<H> {
        let socket = SharedSocket {
            handler: self.handler.clone(),
            sender,
            request,
            members: Mutex::default(),
            in_flight: AtomicUsize::new(0),
        };
        Connection {
            socket: Arc::new(socket),
            connect_timeout: self.connect_timeout,
            connect_by: Some(Instant::now() + self.connect_timeout),
            partial: None,
            held: None,
        }
    }
}

/// The Socket.IO state of one transport, owned by the session's task.
pub struct Connection<H: NamespaceHandler> {
    socket: Arc<SharedSocket<H>>,
    connect_timeout: Duration,
    /// By then the client must be in a namespace.
    connect_by: Option<Instant>,
    /// A packet whose attachments have not all arrived.
    partial: Option<Box<PartialPacket>>,
    /// An event that arrived while the client was connecting to its namespace anew. It waits for the outcome,
    /// and everything behind it waits with it.
    held: Option<Box<(Namespace, Event)>>,
}

struct PartialPacket {
    text: String,
    /// How many attachments are missing.
    missing: usize,
    attachments: Vec<Bytes>,
}

/// The part of it that is shared with the tasks that process the client's packets.
struct SharedSocket<H: NamespaceHandler> {
    handler: Arc<H>,
    sender: Arc<PacketSender>,
    request: H::Request,
    members: Mutex<Members<H>>,
    in_flight: AtomicUsize,
}

/// The client's sessions by namespace. Its lock is also held wherever the sender's view of them changes, so
/// that the two agree.
struct Members<H: NamespaceHandler> {
    sessions: [Option<(ConnectId, Arc<H::Session>)>; Namespace::ALL.len()],
    /// The transport is closed.
    is_over: bool,
}

impl<H: NamespaceHandler> Default for Members<H> {
    fn default() -> Self {
        Self { sessions: Default::default(), is_over: false }
    }
}

/// How many CONNECT packets and events of one transport are processed at once. Further ones are received later.
const MAX_IN_FLIGHT: usize = 32;

impl<H: NamespaceHandler> Handler for Connection<H> {
    fn receive(&mut self, message: Message) -> Result<Received, Violation> {
        match message {
            Message::Text(text) => self.receive_text(text),
            Message::Binary(bytes) => self.receive_attachment(bytes),
        }
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // The outcome wakes the task.
        let is_decided = |held: &mut Box<(Namespace, _)>| !self.socket.sender.is_connecting(held.0);
        if let Some(held) = self.held.take_if(is_decided) {
            let (namespace, event) = *held;
            if let Some(session) = self.socket.member(namespace) {
                SharedSocket::receive(&self.socket, session, event);
            }
        }
        if self.held.is_some() {
            return Poll::Pending;
        }
        // A permit that is given back wakes the task.
        let in_flight = self.socket.in_flight.load(Ordering::Acquire);
        if in_flight < MAX_IN_FLIGHT { Poll::Ready(()) } else { Poll::Pending }
    }

    fn deadline(&self) -> Option<Instant> {
        self.connect_by
    }

    fn on_deadline(&mut self) -> Result<(), Violation> {
        self.connect_by = None;
        if self.socket.sender.is_in_any_namespace() { Ok(()) } else { Err(Violation) }
    }

    fn on_ping_timeout(&self, has_backlog: bool) {
        if has_backlog {
            let mut sessions = Namespace::ALL.into_iter().filter_map(|it| self.socket.member(it));
            if let Some(session) = sessions.next() {
                self.socket.handler.too_slow(&session);
            }
        }
    }
}

impl<H: NamespaceHandler> Connection<H> {
    fn receive_text(&mut self, text: String) -> Result<Received, Violation> {
        // Nothing may come between a packet and its attachments.
        if self.partial.is_some() {
            return Err(Violation);
        }
        let packet = Packet::read(&text).ok_or(Violation)?;
        match packet.attachments {
            0 => self.dispatch(packet, Vec::new()),
            missing @ 1..=MAX_ATTACHMENTS => {
                let attachments = Vec::new();
                self.partial = Some(Box::new(PartialPacket { text, missing, attachments }));
                Ok(Received::Control)
            }
            _ => Err(Violation),
        }
    }

    fn receive_attachment(&mut self, bytes: Vec<u8>) -> Result<Received, Violation> {
        /// What all attachments of a packet may have together, in bytes.
        const MAX_BYTES: usize = 256 * 1024;
        let mut partial = self.partial.take().ok_or(Violation)?;
        partial.attachments.push(bytes.into());
        partial.missing -= 1;
        if partial.attachments.iter().map(Bytes::len).sum::<usize>() > MAX_BYTES {
            return Err(Violation);
        }
        if partial.missing > 0 {
            self.partial = Some(partial);
            return Ok(Received::Control);
        }
        let PartialPacket { text, attachments, .. } = *partial;
        self.dispatch(Packet::read(&text).ok_or(Violation)?, attachments)
    }

    fn dispatch(
        &mut self,
        packet: Packet<'_>,
        attachments: Vec<Bytes>,
    ) -> Result<Received, Violation> {
        let Packet { kind, namespace: path, ack, json, .. } = packet;
        let Some(namespace) = Namespace::of(path) else {
            if kind == PacketKind::Connect {
                self.socket.refuse_unknown_namespace(path);
            }
            return Ok(Received::Control);
        };
        match kind {
            PacketKind::Connect => SharedSocket::connect(&self.socket, namespace, json),
            PacketKind::Disconnect => {
                self.socket.expect_member(namespace)?;
                self.socket.leave(namespace);
                // The client may connect again over the same transport, within the same timeout.
                if !self.socket.sender.is_in_any_namespace() {
                    self.connect_by = Some(Instant::now() + self.connect_timeout);
                }
            }
            PacketKind::Ack => {
                let session = self.socket.expect_member(namespace)?;
                if let (Some(session), Some(id)) = (session, ack) {
                    let answer = Arguments { json: json.to_owned(), attachments };
                    self.socket.handler.acknowledged(&session, id, answer);
                }
            }
            PacketKind::Event => {
                let session = self.socket.expect_member(namespace)?;
                let event = Event::read(json, ack, attachments).ok_or(Violation)?;
                if let Some(session) = session {
                    SharedSocket::receive(&self.socket, session, event);
                    return Ok(Received::Event);
                }
                // The client sent a second CONNECT but may have received the answer to the first and taken it for
                // this one's. Its event waits for the outcome.
                if self.socket.sender.is_connecting(namespace) {
                    self.held = Some(Box::new((namespace, event)));
                }
            }
        }
        Ok(Received::Control)
    }
}

impl<H: NamespaceHandler> Drop for Connection<H> {
    fn drop(&mut self) {
        self.socket.leave_all();
    }
}

impl<H: NamespaceHandler> SharedSocket<H> {
    /// The answer repeats the path, so one that is longer gets none.
    fn refuse_unknown_namespace(&self, path: &str) {
        const MAX_PATH: usize = 1_024;
        if path.len() <= MAX_PATH {
            // A client that does not read its answers is noticed by its queue.
            let _ = self.sender.send(&packet::invalid_namespace(path));
        }
    }

    /// The client's session in that namespace; `None` if it has left or was disconnected from it, as its packet
    /// may have been in flight by then. A client that has never connected violates the protocol.
    fn expect_member(&self, namespace: Namespace) -> Result<Option<Arc<H::Session>>, Violation> {
        let session = self.member(namespace);
        let is_expected = session.is_some() || self.sender.has_ever_connected();
        if is_expected { Ok(session) } else { Err(Violation) }
    }

    fn member(&self, namespace: Namespace) -> Option<Arc<H::Session>> {
        let member = self.members.lock().sessions[namespace as usize].clone();
        member
            .filter(|(connect, _)| self.sender.is_connected(namespace, *connect))
            .map(|(_, session)| session)
    }

    /// The client connects to a namespace, perhaps anew: then its earlier session there is over, whatever
    /// becomes of this one.
    fn connect(self: &Arc<Self>, namespace: Namespace, auth: &str) {
        let connect = {
            let mut members = self.members.lock();
            self.remove(&mut members, namespace);
            self.sender.begin_connect(namespace)
        };
        // What cannot be read authenticates nobody.
        let auth = serde_json::from_str(auth).unwrap_or(Value::Null);
        tokio::spawn(self.clone().finish_connect(namespace, connect, auth, self.permit()));
    }

    async fn finish_connect(
        self: Arc<Self>,
        namespace: Namespace,
        connect: ConnectId,
        auth: Value,
        _permit: InFlightPermit<H>,
    ) {
        let socket = NamespaceSocket::new(&self.sender, namespace, connect);
        let request = ConnectRequest { request: &self.request, auth, socket: socket.clone() };
        let session = match self.handler.connect(request).await {
            Ok(session) => session,
            Err(error) => {
                match error {
                    ConnectError::Rejected(code) => socket.disconnect(code),
                    ConnectError::Unavailable => socket.abort_transport(),
                };
                return;
            }
        };
        if !self.enter(&socket, connect, &session) {
            // The client has left or connected anew (then this does nothing), or its queue is full.
            socket.abort_transport();
            return self.handler.disconnected(&session);
        }
        self.handler.connected(session).await;
    }

    /// Tells the client that it is connected, and has its events find the session from now on.
    fn enter(
        &self,
        socket: &NamespaceSocket,
        connect: ConnectId,
        session: &Arc<H::Session>,
    ) -> bool {
        let mut members = self.members.lock();
        let namespace = socket.namespace();
        // The id is made of letters, digits, `-` and `_`.
        let connected = ["40", namespace.in_packet(), "{\"sid\":\"", socket.id(), "\"}"];
        let connected = text_frame(&connected);
        if members.is_over || !self.sender.finish_connect(namespace, connect, &connected) {
            return false;
        }
        members.sessions[namespace as usize] = Some((connect, session.clone()));
        true
    }

    /// The client leaves a namespace, or stops connecting to it.
    fn leave(&self, namespace: Namespace) {
        let mut members = self.members.lock();
        self.sender.leave(namespace);
        self.remove(&mut members, namespace);
    }

    fn remove(&self, members: &mut Members<H>, namespace: Namespace) {
        if let Some((_, session)) = members.sessions[namespace as usize].take() {
            self.handler.disconnected(&session);
        }
    }

    /// The transport is closed.
    fn leave_all(&self) {
        let mut members = self.members.lock();
        members.is_over = true;
        for namespace in Namespace::ALL {
            self.sender.leave(namespace);
            self.remove(&mut members, namespace);
        }
    }

    /// Processes an event in a task of its own.
    fn receive(self: &Arc<Self>, session: Arc<H::Session>, event: Event) {
        let permit = self.permit();
        tokio::spawn(async move {
            permit.0.handler.receive(session, event).await;
        });
    }

    fn permit(self: &Arc<Self>) -> InFlightPermit<H> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlightPermit(self.clone())
    }
}

/// A CONNECT or event that is being processed; dropped when it is done.
struct InFlightPermit<H: NamespaceHandler>(Arc<SharedSocket<H>>);

impl<H: NamespaceHandler> Drop for InFlightPermit<H> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == MAX_IN_FLIGHT {
            self.0.sender.wake_task();
        }
    }
}

#[cfg(test)]
mod tests;
