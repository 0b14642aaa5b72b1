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

/// The Socket.IO state of one transport that the session's task shares with the tasks that process single packets of
/// the client.
pub(super) struct SharedSocket<H: NamespaceHandler> {
    pub(super) handler: Arc<H>,
    pub(super) sender: Arc<PacketSender>,
    pub(super) namespaces: Namespaces,
    refusal: Refusal,
    request: H::Request,
    pub(super) members: Mutex<Members<H>>,
    in_flight: Mutex<InFlight>,
}

/// The client's sessions by namespace. Their lock is also held while the memberships in the [`PacketSender`] change,
/// so that both always agree.
pub(super) struct Members<H: NamespaceHandler> {
    pub(super) sessions: NamespaceMap<Option<(ConnectId, Arc<H::Session>)>>,
    /// The transport is closed.
    is_closed: bool,
}

/// The number of CONNECT packets and events of one transport that are being processed, and the size of their texts
/// and attachments. While a limit is reached, no further packet is received. The last packet may exceed the limit in
/// bytes.
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

    /// Responds that the namespace does not exist. The response repeats the path, so a very long path gets none.
    pub(super) fn reject_unknown_namespace(&self, path: &str) {
        const MAX_PATH: usize = 1_024;
        if path.len() <= MAX_PATH {
            // If the queue is full, the client does not read. The heartbeat detects that.
            let _ = self.sender.send(&packet::invalid_namespace(path));
        }
    }

    /// The client's session in that namespace, for a packet that requires one. `None` if the client is not in the
    /// namespace any more: it may have sent the packet before it learned of its disconnect. It is a violation of the
    /// protocol only if the client has never sent a CONNECT.
    pub(super) fn expect_member(
        &self,
        namespace: Namespace,
    ) -> Result<Option<Arc<H::Session>>, Violation> {
        let session = self.member(namespace);
        let is_expected = session.is_some() || self.sender.has_ever_connected();
        if is_expected { Ok(session) } else { Err(Violation) }
    }

    /// The client's session in that namespace; `None` if the client is not connected to it.
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

    /// Starts to connect the client to a namespace. If the client was connected to it, its earlier session there ends
    /// now, even if the new connect fails.
    pub(super) fn connect(self: &Arc<Self>, namespace: Namespace, auth: &str) {
        let connect = {
            let mut members = self.members.lock();
            self.remove(&mut members, namespace);
            self.sender.begin_connect(namespace)
        };
        let permit = self.permit(auth.len());
        // An unreadable payload counts as none, and so contains no token.
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
            // This matters only if the send queue is full. Otherwise the client has left, connected again or closed
            // its transport, and the call does nothing.
            socket.abort_transport();
            return self.handler.disconnected(&session);
        }
        self.handler.connected(session).await;
    }

    /// Sends the response to the CONNECT and registers the session for the client's events. `false` if the response
    /// cannot be sent, or if the client has left or connected again.
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

    /// Ends the client's membership in a namespace, or its connect to it.
    pub(super) fn leave(&self, namespace: Namespace) {
        let mut members = self.members.lock();
        self.sender.leave(namespace);
        self.remove(&mut members, namespace);
    }

    /// Ends the client's session in a namespace, if there is one.
    fn remove(&self, members: &mut Members<H>, namespace: Namespace) {
        if let Some((_, session)) = members.sessions.get_mut(namespace).take() {
            self.handler.disconnected(&session);
        }
    }

    /// Ends all memberships, because the transport is closed.
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

    /// Counts a packet as in flight until the permit is dropped.
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
