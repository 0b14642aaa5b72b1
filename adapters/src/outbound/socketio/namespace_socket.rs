use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use engineioxide_core::Sid;

use super::membership::ConnectId;
use super::namespace::Namespace;
use super::packet_sender::PacketSender;
use crate::transport::{EnqueueError, binary_frame, text_frame};

/// A handle to send to one client in one namespace. It does not keep the connection open. Once the client has left
/// or has connected again, sending fails.
#[derive(Clone)]
pub struct NamespaceSocket {
    sender: Weak<PacketSender>,
    namespace: Namespace,
    connect: ConnectId,
    id: Sid,
    refusal: Refusal,
}

/// The packets that a client receives when its CONNECT is rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Refusal {
    /// A `connect_error` with a code.
    #[default]
    ConnectError,
    /// A successful CONNECT followed by a DISCONNECT, as from NestJS's `client.disconnect()` in `handleConnection`.
    /// The server never treats the client as connected, so no event is sent between the two packets.
    Disconnect,
}

/// How long a client that was disconnected may take to connect to another namespace. That CONNECT may be in flight:
/// a client sends one CONNECT for each namespace and, by polling, possibly each in a separate request.
const CONNECT_GRACE: Duration = Duration::from_secs(1);

/// The JSON array of an event (name and arguments) or of an acknowledgement (arguments), with the attachments that
/// its placeholders refer to.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// The array as JSON text.
    pub json: String,
    /// The binary attachments, in the order of their placeholders.
    pub attachments: Vec<Bytes>,
}

impl NamespaceSocket {
    pub(crate) fn new(
        sender: &Arc<PacketSender>,
        namespace: Namespace,
        connect: ConnectId,
        refusal: Refusal,
    ) -> Self {
        Self { sender: Arc::downgrade(sender), namespace, connect, id: Sid::new(), refusal }
    }

    /// The public `socket.id`: random, different for each connect, and unrelated to the secret id of the
    /// Engine.IO session.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The namespace that the client is in.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Emits an event.
    pub fn emit(&self, event: &Arguments) -> Result<(), EnqueueError> {
        self.send_packet('2', '5', None, event)
    }

    /// Emits an event and requests an acknowledgement with that id.
    pub fn emit_with_ack(&self, id: u64, event: &Arguments) -> Result<(), EnqueueError> {
        self.send_packet('2', '5', Some(id), event)
    }

    /// Acknowledges the client's event with that id.
    pub fn acknowledge(&self, id: u64, arguments: &Arguments) -> Result<(), EnqueueError> {
        self.send_packet('3', '6', Some(id), arguments)
    }

    /// Disconnects the client from the namespace. A client that is still connecting is rejected with `code`. The
    /// transport is closed if the client is in no namespace after a second. Returns whether the client was connecting
    /// or connected.
    pub fn disconnect(&self, code: &str) -> bool {
        self.reject(code, None)
    }

    /// Like [`disconnect`](Self::disconnect). `why` is a sentence about the reason, for a client that is still
    /// connecting.
    pub(crate) fn reject(&self, code: &str, why: Option<&str>) -> bool {
        let Some(sender) = self.sender.upgrade() else { return false };
        let disconnect = text_frame(&["41", self.namespace.packet_prefix()]);
        let refusal = match self.refusal {
            Refusal::ConnectError => &[connect_error(self.namespace, code, why)][..],
            Refusal::Disconnect => &[self.connected(), disconnect.clone()],
        };
        let was_member = sender.disconnect(self.namespace, self.connect, refusal, &disconnect);
        if was_member && !sender.is_in_any_namespace() {
            let Self { sender, namespace, connect, .. } = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(CONNECT_GRACE).await;
                if let Some(sender) = sender.upgrade() {
                    sender.close_if_disconnected(namespace, connect);
                }
            });
        }
        was_member
    }

    /// The packet that accepts the CONNECT: Engine.IO's message (`4`) with Socket.IO's CONNECT (`0`).
    pub(crate) fn connected(&self) -> Bytes {
        // The id consists of letters, digits, `-` and `_`, which JSON does not escape.
        text_frame(&["40", self.namespace.packet_prefix(), "{\"sid\":\"", self.id(), "\"}"])
    }

    /// Closes the transport after queued packets have been sent. Does nothing and returns `false` if the client has
    /// left or has connected again.
    pub(crate) fn close_transport(&self) -> bool {
        self.close_for(true)
    }

    /// Like [`close_transport`](Self::close_transport), but closes it now and drops queued packets.
    pub(crate) fn abort_transport(&self) -> bool {
        self.close_for(false)
    }

    fn close_for(&self, graceful: bool) -> bool {
        let sender = self.sender.upgrade();
        sender.is_some_and(|sender| sender.close_for(self.namespace, self.connect, graceful))
    }

    /// How many bytes wait to be sent to the client.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.sender.upgrade().map_or(0, |sender| sender.queued_bytes())
    }

    pub(super) fn send<'a>(
        &self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<(), EnqueueError> {
        let sender = self.sender.upgrade().ok_or(EnqueueError::Closed)?;
        sender.send_in(self.namespace, self.connect, frames)
    }

    /// Sends a packet and its attachments. Its type is `plain` without attachments and `binary` with attachments.
    fn send_packet(
        &self,
        plain: char,
        binary: char,
        id: Option<u64>,
        arguments: &Arguments,
    ) -> Result<(), EnqueueError> {
        let Arguments { json, attachments } = arguments;
        // `4` is Engine.IO's message packet.
        let packet_type = match attachments.len() {
            0 => format!("4{plain}"),
            count => format!("4{binary}{count}-"),
        };
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let text = text_frame(&[&packet_type, self.namespace.packet_prefix(), &id, json]);
        let attachments = attachments.iter().map(|bytes| binary_frame(bytes));
        let frames: Vec<_> = std::iter::once(text).chain(attachments).collect();
        self.send(frames.iter())
    }
}

impl fmt::Debug for NamespaceSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceSocket")
            .field("namespace", &self.namespace)
            .field("connect", &self.connect)
            .finish_non_exhaustive()
    }
}

/// The packet that rejects a CONNECT.
fn connect_error(namespace: Namespace, code: &str, why: Option<&str>) -> Bytes {
    let mut error = serde_json::json!({ "message": code });
    if let Some(why) = why {
        error["data"] = serde_json::json!({ "code": code, "message": why });
    }
    text_frame(&["44", namespace.packet_prefix(), &error.to_string()])
}
