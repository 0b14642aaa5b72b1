//! Engine.IO, version 4: the rules of the protocol's published test suite, the rules with MUST in its
//! specification, and behaviour that clients rely on during an upgrade.

use super::peer::Case;

mod closing;
mod handshake;
mod heartbeat;
mod messages;
mod upgrade;

/// The cases for any server.
pub(super) fn transport_cases() -> Vec<Case> {
    let all = [
        handshake::transport_cases(),
        heartbeat::transport_cases(),
        closing::transport_cases(),
        upgrade::transport_cases(),
    ];
    all.into_iter().flatten().collect()
}

/// The cases for a server that returns every message.
pub(super) fn message_cases() -> Vec<Case> {
    let all = [messages::message_cases(), closing::message_cases(), upgrade::message_cases()];
    all.into_iter().flatten().collect()
}
