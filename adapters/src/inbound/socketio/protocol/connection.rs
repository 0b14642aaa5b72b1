use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use super::super::engine::{EngineHandler, EngineMessage, EngineService, Received, Violation};
use super::handler::NamespaceHandler;
use super::packet::{ClientEvent, MAX_ATTACHMENTS, Packet, PacketKind};
use super::settings::ProtocolSettings;
use super::shared_socket::SharedSocket;
use crate::outbound::socketio::{Arguments, Namespace, PacketSender};

/// Socket.IO as a service of Engine.IO.
pub struct SocketIo<H> {
    handler: Arc<H>,
    settings: ProtocolSettings,
}

impl<H> SocketIo<H> {
    #[expect(missing_docs, reason = "nothing to add")]
    pub fn new(handler: Arc<H>, settings: ProtocolSettings) -> Self {
        Self { handler, settings }
    }
}

impl<H: NamespaceHandler> EngineService for SocketIo<H> {
    type Request = H::Request;
    type Handler = SocketIoConnection<H>;

    fn read_request(&self, request: &Request<Body>) -> H::Request {
        self.handler.read_request(request)
    }

    fn open(&self, request: H::Request, sender: Arc<PacketSender>) -> SocketIoConnection<H> {
        SocketIoConnection {
            socket: SharedSocket::new(self.handler.clone(), sender, &self.settings, request),
            connect_timeout: self.settings.connect_timeout,
            connect_by: Some(Instant::now() + self.settings.connect_timeout),
            partial: None,
            held_event: None,
        }
    }
}

/// The Socket.IO state of one transport, owned by the session's task.
pub struct SocketIoConnection<H: NamespaceHandler> {
    socket: Arc<SharedSocket<H>>,
    connect_timeout: Duration,
    /// The time at which the client must be connected or connecting to a namespace; `None` after this was checked.
    connect_by: Option<Instant>,
    /// A packet whose attachments have not all arrived.
    partial: Option<Box<PartialPacket>>,
    /// An event that arrived while the client was connecting again to the namespace. The event and all packets after
    /// it wait until that connect has succeeded or failed.
    held_event: Option<Box<(Namespace, ClientEvent)>>,
}

struct PartialPacket {
    text: String,
    /// How many attachments are missing.
    missing: usize,
    attachments: Vec<Bytes>,
}

impl<H: NamespaceHandler> EngineHandler for SocketIoConnection<H> {
    fn receive(&mut self, message: EngineMessage) -> Result<Received, Violation> {
        match message {
            EngineMessage::Text(text) => self.receive_text(text),
            EngineMessage::Binary(bytes) => self.receive_attachment(bytes),
        }
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // The sender wakes the task when the connect has succeeded or failed.
        let is_decided = |held: &mut Box<(Namespace, _)>| !self.socket.sender.is_connecting(held.0);
        if let Some(held) = self.held_event.take_if(is_decided) {
            let (namespace, event) = *held;
            if let Some(session) = self.socket.member(namespace) {
                self.socket.receive(session, event);
            }
        }
        // A packet in flight wakes the task when it is done and its permit is dropped.
        if self.held_event.is_none() && self.socket.has_capacity() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.connect_by
    }

    fn on_deadline(&mut self) -> Result<(), Violation> {
        self.connect_by = None;
        if self.socket.sender.is_in_any_namespace() { Ok(()) } else { Err(Violation) }
    }

    fn on_ping_timeout(&self, has_backlog: bool) {
        let mut members = self.socket.namespaces.iter().filter_map(|it| self.socket.member(it));
        // One session is enough, because all sessions of the client share its transport.
        if has_backlog && let Some(session) = members.next() {
            self.socket.handler.too_slow(&session);
        }
    }
}

impl<H: NamespaceHandler> SocketIoConnection<H> {
    fn receive_text(&mut self, text: String) -> Result<Received, Violation> {
        // No packet may arrive between a packet and its attachments.
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
        /// The maximum size of all attachments of a packet together, in bytes.
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
        let Some(namespace) = self.socket.namespaces.find(path) else {
            if kind == PacketKind::Connect {
                self.socket.reject_unknown_namespace(path);
            }
            return Ok(Received::Control);
        };
        match kind {
            PacketKind::Connect => self.socket.connect(namespace, json),
            PacketKind::Disconnect => {
                self.socket.expect_member(namespace)?;
                self.socket.leave(namespace);
                // The client may connect again on the same transport, within the same timeout.
                if !self.socket.sender.is_in_any_namespace() {
                    self.connect_by = Some(Instant::now() + self.connect_timeout);
                }
            }
            PacketKind::Ack => {
                let session = self.socket.expect_member(namespace)?;
                if let (Some(session), Some(id)) = (session, ack) {
                    let arguments = Arguments { json: json.to_owned(), attachments };
                    self.socket.handler.acknowledged(&session, id, arguments);
                }
            }
            PacketKind::Event => {
                let session = self.socket.expect_member(namespace)?;
                let event = ClientEvent::read(json, ack, attachments).ok_or(Violation)?;
                if let Some(session) = session {
                    self.socket.receive(session, event);
                    return Ok(Received::Event);
                }
                // The client sent a second CONNECT, then received the response to the first one and may have mistaken
                // it for the response to the second. So its event is not dropped.
                if self.socket.sender.is_connecting(namespace) {
                    self.held_event = Some(Box::new((namespace, event)));
                }
            }
        }
        Ok(Received::Control)
    }
}

impl<H: NamespaceHandler> Drop for SocketIoConnection<H> {
    fn drop(&mut self) {
        self.socket.leave_all();
    }
}

#[cfg(test)]
mod tests;
