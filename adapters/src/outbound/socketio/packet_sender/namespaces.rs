use bytes::Bytes;

use super::super::membership::{ConnectId, Membership, MembershipPhase};
use super::super::namespace::Namespace;
use super::{PacketSender, SessionPhase};
use crate::transport::EnqueueError;

/// For the client's membership in namespaces.
impl PacketSender {
    /// Sends packets of a namespace. Fails if the client is not connected to it, or was connected by another CONNECT.
    pub(crate) fn send_in<'a>(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<(), EnqueueError> {
        let mut state = self.state.lock();
        if !state.membership(namespace).is(MembershipPhase::Connected, connect) {
            return Err(EnqueueError::Closed);
        }
        state.send(frames, self.limits)
    }

    /// Records a CONNECT of the client, which supersedes earlier ones in the same namespace.
    pub(crate) fn begin_connect(&self, namespace: Namespace) -> ConnectId {
        self.state.lock().membership(namespace).renew(MembershipPhase::Connecting)
    }

    /// Sends the response to a CONNECT and connects the client. Returns `false` if the CONNECT was superseded or the
    /// response cannot be sent.
    pub(crate) fn finish_connect(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        response: &Bytes,
    ) -> bool {
        // The update wakes the session's task, which may hold an event of the client until the connect is done.
        self.update(|state| {
            let connects = state.membership(namespace).is(MembershipPhase::Connecting, connect)
                && state.send([response].into_iter(), self.limits).is_ok();
            if connects {
                state.membership(namespace).phase = MembershipPhase::Connected;
            }
            connects
        })
    }

    /// Whether the client waits for the response to its CONNECT.
    pub(crate) fn is_connecting(&self, namespace: Namespace) -> bool {
        self.state.lock().membership(namespace).phase == MembershipPhase::Connecting
    }

    /// Disconnects the client from a namespace. Sends `refusal` if the client is still connecting, or `disconnect` if
    /// it is connected. Returns whether it was connecting or connected.
    pub(crate) fn disconnect(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        refusal: &[Bytes],
        disconnect: &Bytes,
    ) -> bool {
        self.update(|state| {
            let membership = state.membership(namespace);
            let packets = match membership.phase {
                _ if membership.connect != connect => return false,
                MembershipPhase::Disconnected => return false,
                MembershipPhase::Connecting => refusal,
                MembershipPhase::Connected => std::slice::from_ref(disconnect),
            };
            membership.phase = MembershipPhase::Disconnected;
            if state.send(packets.iter(), self.limits).is_err() {
                // A client that does not read would never learn that it is disconnected.
                state.phase = SessionPhase::Aborted;
            }
            true
        })
    }

    /// Closes the transport of a client that is in no namespace. Does nothing if the client has connected to this
    /// namespace again, or has left it, since the given CONNECT.
    pub(crate) fn close_if_disconnected(&self, namespace: Namespace, connect: ConnectId) {
        self.update(|state| {
            if state.membership(namespace).connect == connect && !state.is_in_any_namespace() {
                state.close();
            }
        });
    }

    /// Closes the transport on behalf of a client in a namespace: after queued packets have been sent if `graceful`,
    /// otherwise now. Does nothing if the client has connected to the namespace again or has left it. Returns whether
    /// this call closed the transport.
    pub(crate) fn close_for(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        graceful: bool,
    ) -> bool {
        self.update(|state| {
            let membership = state.membership(namespace);
            let is_current =
                membership.connect == connect && membership.phase != MembershipPhase::Disconnected;
            let is_open = state.phase == SessionPhase::Open;
            if is_current && graceful {
                state.close();
            } else if is_current {
                state.phase = SessionPhase::Aborted;
            }
            is_current && is_open
        })
    }

    /// Records that the client left the namespace.
    pub(crate) fn leave(&self, namespace: Namespace) {
        self.state.lock().membership(namespace).renew(MembershipPhase::Disconnected);
    }

    /// Whether the client has ever sent a CONNECT, successful or not.
    pub(crate) fn has_ever_connected(&self) -> bool {
        let has_connected = |membership: &Membership| membership.connect != ConnectId::default();
        self.state.lock().namespaces.iter().any(has_connected)
    }

    /// Whether the client is connected or connecting to a namespace.
    pub(crate) fn is_in_any_namespace(&self) -> bool {
        self.state.lock().is_in_any_namespace()
    }

    /// Whether the client is connected to a namespace, and so is authenticated.
    pub(crate) fn is_connected_to_any(&self) -> bool {
        let is_connected = |membership: &Membership| membership.phase == MembershipPhase::Connected;
        self.state.lock().namespaces.iter().any(is_connected)
    }

    /// Whether the client is connected to the namespace by the given CONNECT.
    pub(crate) fn is_connected(&self, namespace: Namespace, connect: ConnectId) -> bool {
        self.state.lock().membership(namespace).is(MembershipPhase::Connected, connect)
    }
}
