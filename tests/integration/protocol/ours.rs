//! Belfry's own stack as a peer.

use super::peer::{Difference, Peer, Timers};

/// The cases of Engine.IO that the echo server does not pass, on purpose.
pub(super) const ENGINE_IO_DIFFERENCES: &[Difference] = &[];

/// The cases of Engine.IO and Socket.IO that the Socket.IO server does not pass, on purpose.
pub(super) const SOCKET_IO_DIFFERENCES: &[Difference] = &[];

/// The scenarios of the JavaScript client that fail on purpose.
pub(super) const SCENARIO_DIFFERENCES: &[Difference] = &[];

/// A server of Engine.IO on Belfry's stack that sends every message back.
pub(super) async fn engine_io(_: Timers) -> Peer {
    unimplemented!("an echo server on Belfry's Engine.IO")
}

/// A server of Socket.IO on Belfry's stack whose namespaces answer the events that
/// [`listen`](super::reference::listen) lists.
pub(super) async fn socket_io(_: Timers) -> Peer {
    unimplemented!("an echo server on Belfry's Socket.IO")
}
