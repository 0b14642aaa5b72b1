use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::super::engine::Violation;
use super::handler::{ConnectError, ConnectRequest, NamespaceHandler};
use super::packet::{self, ClientEvent};
use super::settings::ProtocolSettings;
use crate::outbound::socketio::{
    ConnectId, Namespace, NamespaceMap, NamespaceSocket, Namespaces, PacketSender, Refusal,
};

/// The part of a transport's Socket.IO state that the tasks which process the client's packets share.
pub(super) struct SharedSocket<H: NamespaceHandler> {
    pub(super) handler: Arc<H>,
    pub(super) sender: Arc<PacketSender>,
    pub(super) namespaces: Namespaces,
    refusal: Refusal,
    request: H::Request,
    pub(super) members: Mutex<Members<H>>,
    in_flight: Mutex<InFlight>,
}

/// The client's sessions by namespace. Its lock is also held while the sender's memberships change, so that the two
/// agree.
pub(super) struct Members<H: NamespaceHandler> {
    pub(super) sessions: NamespaceMap<Option<(ConnectId, Arc<H::Session>)>>,
    /// The transport is closed.
    is_closed: bool,
}

/// The CONNECT packets and events of one transport that are being processed, and the size of their texts and
/// attachments. At a limit, further packets are received later. The packet that reaches the limit may exceed it.
#[derive(Debug, Default, Clone, Copy)]
struct InFlight {
    packets: usize,
    bytes: usize,
}

impl InFlight {
    const fn has_capacity(self) -> bool {
        self.packets < MAX_IN_FLIGHT && self.bytes < MAX_BYTES_IN_FLIGHT
    }
}

pub(super) const MAX_IN_FLIGHT: usize = 32;
pub(super) const MAX_BYTES_IN_FLIGHT: usize = 64 * 1024;

impl<H: NamespaceHandler> SharedSocket<H> {
    pub(super) fn new(
        handler: Arc<H>,
        sender: Arc<PacketSender>,
        settings: &ProtocolSettings,
        request: H::Request,
    ) -> Arc<Self> {
        let members = Mutex::new(Members { sessions: NamespaceMap::default(), is_closed: false });
        let in_flight = Mutex::default();
        let ProtocolSettings { namespaces, refusal, .. } = *settings;
        Arc::new(Self { handler, sender, namespaces, refusal, request, members, in_flight })
    }

    /// The response repeats the path, so a very long path gets none.
    pub(super) fn reject_unknown_namespace(&self, path: &str) {
        const MAX_PATH: usize = 1_024;
        if path.len() <= MAX_PATH {
            // If the queue is full, the client does not read. The heartbeat detects that.
            let _ = self.sender.send(&packet::invalid_namespace(path));
        }
    }

    /// The client's session in that namespace. `None` if the client has left it or was disconnected from it, because
    /// its packet may have been in flight then. A client that has never connected violates the protocol.
    pub(super) fn expect_member(
        &self,
        namespace: Namespace,
    ) -> Result<Option<Arc<H::Session>>, Violation> {
        let session = self.member(namespace);
        let is_expected = session.is_some() || self.sender.has_ever_connected();
        if is_expected { Ok(session) } else { Err(Violation) }
    }

    pub(super) fn member(&self, namespace: Namespace) -> Option<Arc<H::Session>> {
        let member = self.members.lock().sessions.get(namespace).cloned().flatten();
        member
            .filter(|(connect, _)| self.sender.is_connected(namespace, *connect))
            .map(|(_, session)| session)
    }

    /// Whether another packet may be processed.
    pub(super) fn has_capacity(&self) -> bool {
        self.in_flight.lock().has_capacity()
    }

    /// The client connects to a namespace. If it connects again, its earlier session there ends, whatever the outcome.
    pub(super) fn connect(self: &Arc<Self>, namespace: Namespace, auth: &str) {
        let connect = {
            let mut members = self.members.lock();
            self.remove(&mut members, namespace);
            self.sender.begin_connect(namespace)
        };
        let permit = self.permit(auth.len());
        // An unreadable payload authenticates no user.
        let auth = serde_json::from_str(auth).unwrap_or_else(|_| RawValue::NULL.to_owned());
        tokio::spawn(self.clone().finish_connect(namespace, connect, auth, permit));
    }

    async fn finish_connect(
        self: Arc<Self>,
        namespace: Namespace,
        connect: ConnectId,
        auth: Box<RawValue>,
        _permit: InFlightPermit<H>,
    ) {
        let socket = NamespaceSocket::new(&self.sender, namespace, connect, self.refusal);
        let request = ConnectRequest { request: &self.request, auth, socket: socket.clone() };
        let session = match self.handler.connect(request).await {
            Ok(session) => session,
            Err(error) => {
                match error {
                    ConnectError::Rejected(code) => socket.disconnect(code),
                    ConnectError::RejectedBecause(code, why) => socket.reject(code, Some(&why)),
                    ConnectError::Unavailable => socket.abort_transport(),
                };
                return;
            }
        };
        if !self.add_member(&socket, connect, &session) {
            // The client has left or connected again (then this does nothing), or its queue is full.
            socket.abort_transport();
            return self.handler.disconnected(&session);
        }
        self.handler.connected(session).await;
    }

    /// Sends the response to the CONNECT and makes the client's events find the session.
    fn add_member(
        &self,
        socket: &NamespaceSocket,
        connect: ConnectId,
        session: &Arc<H::Session>,
    ) -> bool {
        let mut members = self.members.lock();
        let namespace = socket.namespace();
        if members.is_closed || !self.sender.finish_connect(namespace, connect, &socket.connected())
        {
            return false;
        }
        *members.sessions.get_mut(namespace) = Some((connect, session.clone()));
        true
    }

    /// The client leaves a namespace, or stops connecting to it.
    pub(super) fn leave(&self, namespace: Namespace) {
        let mut members = self.members.lock();
        self.sender.leave(namespace);
        self.remove(&mut members, namespace);
    }

    fn remove(&self, members: &mut Members<H>, namespace: Namespace) {
        if let Some((_, session)) = members.sessions.get_mut(namespace).take() {
            self.handler.disconnected(&session);
        }
    }

    /// The transport is closed.
    pub(super) fn leave_all(&self) {
        let mut members = self.members.lock();
        members.is_closed = true;
        for namespace in self.namespaces.iter() {
            if members.sessions.get(namespace).is_none() {
                continue;
            }
            self.sender.leave(namespace);
            self.remove(&mut members, namespace);
        }
    }

    /// Processes an event in a separate task.
    pub(super) fn receive(self: &Arc<Self>, session: Arc<H::Session>, event: ClientEvent) {
        let permit = self.permit(event.size());
        tokio::spawn(async move {
            permit.socket.handler.receive(session, event).await;
        });
    }

    fn permit(self: &Arc<Self>, bytes: usize) -> InFlightPermit<H> {
        let mut in_flight = self.in_flight.lock();
        in_flight.packets += 1;
        in_flight.bytes += bytes;
        InFlightPermit { socket: self.clone(), bytes }
    }
}

/// A CONNECT or an event that is being processed.
struct InFlightPermit<H: NamespaceHandler> {
    socket: Arc<SharedSocket<H>>,
    bytes: usize,
}

impl<H: NamespaceHandler> Drop for InFlightPermit<H> {
    fn drop(&mut self) {
        let makes_room = {
            let mut in_flight = self.socket.in_flight.lock();
            let was_full = !in_flight.has_capacity();
            in_flight.packets -= 1;
            in_flight.bytes -= self.bytes;
            was_full && in_flight.has_capacity()
        };
        if makes_room {
            self.socket.sender.wake_task();
        }
    }
}
