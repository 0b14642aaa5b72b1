use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use engineioxide_core::Sid;

use super::namespace::Namespace;
use super::packet_sender::{ConnectId, PacketSender};
use crate::transport::{NotSent, binary_frame, text_frame};

/// A handle to send to one client in one namespace. It does not keep the connection open. Once the client has left
/// or connected anew, it sends nothing.
#[derive(Clone)]
pub struct NamespaceSocket {
    sender: Weak<PacketSender>,
    namespace: Namespace,
    connect: ConnectId,
    id: Sid,
}

/// How long a client that was refused may take to connect to another namespace. Its CONNECT may be on its way:
/// clients send one for each namespace, and by polling each in a request of its own.
const CONNECT_GRACE: Duration = Duration::from_secs(1);

/// The JSON array of an event's name and arguments, or of an acknowledgement's arguments, with the attachments
/// that its placeholders refer to.
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
    ) -> Self {
        Self { sender: Arc::downgrade(sender), namespace, connect, id: Sid::new() }
    }

    /// The public `socket.id`: random, another one for each connect, and unrelated to the secret id of the
    /// transport's session.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The namespace.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Emits an event.
    pub fn emit(&self, event: &Arguments) -> Result<(), NotSent> {
        self.send_packet('2', '5', None, event)
    }

    /// Emits an event and asks for an acknowledgement of that id.
    pub fn emit_with_ack(&self, id: u64, event: &Arguments) -> Result<(), NotSent> {
        self.send_packet('2', '5', Some(id), event)
    }

    /// Acknowledges the client's event of that id.
    pub fn acknowledge(&self, id: u64, answer: &Arguments) -> Result<(), NotSent> {
        self.send_packet('3', '6', Some(id), answer)
    }

    /// Removes the client from the namespace. If it is still connecting, it gets a `connect_error` with `code`. Its
    /// transport is closed if it is in no other namespace a moment later. Returns whether it was in the namespace.
    pub fn disconnect(&self, code: &str) -> bool {
        let Some(sender) = self.sender.upgrade() else { return false };
        let refusal = connect_error(self.namespace, code);
        let disconnect = text_frame(&["41", self.namespace.in_packet()]);
        let ended = sender.end_membership(self.namespace, self.connect, &refusal, &disconnect);
        if ended && !sender.is_in_any_namespace() {
            let Self { sender, namespace, connect, .. } = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(CONNECT_GRACE).await;
                if let Some(sender) = sender.upgrade() {
                    sender.close_if_outside(namespace, connect);
                }
            });
        }
        ended
    }

    /// Closes the transport after what is queued has been sent. Returns `false`, and does nothing, if the client
    /// has left or connected anew.
    pub(crate) fn close_transport(&self) -> bool {
        self.close_for(true)
    }

    /// The same at once: what is queued is lost.
    pub(crate) fn abort_transport(&self) -> bool {
        self.close_for(false)
    }

    fn close_for(&self, graceful: bool) -> bool {
        let sender = self.sender.upgrade();
        sender.is_some_and(|sender| sender.close_for(self.namespace, self.connect, graceful))
    }

    /// How many bytes of what was sent have not been handed to the network yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.sender.upgrade().map_or(0, |sender| sender.queued_bytes())
    }

    pub(super) fn send<'a>(
        &self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<(), NotSent> {
        let sender = self.sender.upgrade().ok_or(NotSent::Closed)?;
        sender.send_in(self.namespace, self.connect, frames)
    }

    fn send_packet(
        &self,
        plain: char,
        binary: char,
        id: Option<u64>,
        arguments: &Arguments,
    ) -> Result<(), NotSent> {
        let Arguments { json, attachments } = arguments;
        let kind = match attachments.len() {
            0 => format!("4{plain}"),
            count => format!("4{binary}{count}-"),
        };
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let text = text_frame(&[&kind, self.namespace.in_packet(), &id, json]);
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

/// A client may not connect to the namespace.
fn connect_error(namespace: Namespace, code: &str) -> Bytes {
    let message = serde_json::json!({ "message": code });
    text_frame(&["44", namespace.in_packet(), &message.to_string()])
}
