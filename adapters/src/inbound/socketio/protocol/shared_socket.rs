use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

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
    in_flight: AtomicUsize,
}

/// The client's sessions by namespace. Its lock is also held while the sender's memberships change, so that the two
/// agree.
pub(super) struct Members<H: NamespaceHandler> {
    pub(super) sessions: NamespaceMap<Option<(ConnectId, Arc<H::Session>)>>,
    /// The transport is closed.
    is_closed: bool,
}

/// How many CONNECT packets and events of one transport are processed at once. Further packets are received later.
pub(super) const MAX_IN_FLIGHT: usize = 32;

impl<H: NamespaceHandler> SharedSocket<H> {
    pub(super) fn new(
        handler: Arc<H>,
        sender: Arc<PacketSender>,
        settings: &ProtocolSettings,
        request: H::Request,
    ) -> Arc<Self> {
        let members = Mutex::new(Members { sessions: NamespaceMap::default(), is_closed: false });
        let in_flight = AtomicUsize::new(0);
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
        self.in_flight.load(Ordering::Acquire) < MAX_IN_FLIGHT
    }

    /// The client connects to a namespace. If it connects again, its earlier session there ends, whatever the outcome.
    pub(super) fn connect(self: &Arc<Self>, namespace: Namespace, auth: &str) {
        let connect = {
            let mut members = self.members.lock();
            self.remove(&mut members, namespace);
            self.sender.begin_connect(namespace)
        };
        // An unreadable payload authenticates no user.
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

/// A CONNECT or an event that is being processed.
struct InFlightPermit<H: NamespaceHandler>(Arc<SharedSocket<H>>);

impl<H: NamespaceHandler> Drop for InFlightPermit<H> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == MAX_IN_FLIGHT {
            self.0.sender.wake_task();
        }
    }
}
