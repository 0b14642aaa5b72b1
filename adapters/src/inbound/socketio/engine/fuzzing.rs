use tokio::sync::oneshot;

use super::handler::EngineMessage;
use super::packet::EnginePacket;
use super::polling::PostedPackets;

/// The packets in a body as a session receives them, each with its message if it is a message packet.
pub(in crate::inbound::socketio) fn split_and_read(
    body: &str,
) -> Vec<(String, Option<EngineMessage>)> {
    let (response, _) = oneshot::channel();
    let mut packets = PostedPackets::new(body.to_owned(), response);
    let mut all = Vec::new();
    while let Some(packet) = packets.next() {
        let message = match EnginePacket::read_polled(packet) {
            Ok(EnginePacket::Message(message)) => Some(message),
            _ => None,
        };
        all.push((packet.to_owned(), message));
    }
    all
}
