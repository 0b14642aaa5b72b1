/// The state of a client in one namespace.
#[derive(Debug, Default)]
pub(super) struct Membership {
    pub(super) phase: MembershipPhase,
    /// The id of the latest CONNECT. Each CONNECT and each leave increments it, so that a socket with an older id is
    /// stale.
    pub(super) connect: ConnectId,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum MembershipPhase {
    #[default]
    Disconnected,
    Connecting,
    Connected,
}

/// Identifies one CONNECT packet of one client in one namespace.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectId(u32);

impl Membership {
    /// Whether the client is in this phase by this CONNECT.
    pub(super) fn is(&self, phase: MembershipPhase, connect: ConnectId) -> bool {
        self.phase == phase && self.connect == connect
    }

    /// Changes to the phase with a new id, and returns the id.
    pub(super) fn renew(&mut self, phase: MembershipPhase) -> ConnectId {
        *self = Self { phase, connect: ConnectId(self.connect.0.wrapping_add(1)) };
        self.connect
    }
}
