use serde_json::Value;
use serde_json::value::RawValue;

use super::packet::{EnginePacket, Event, Kind, Packet};
use crate::transport::Heard;
use crate::transport::fuzzing::heard;

/// What a client sends over a WebSocket, cut as [`heard`] has it. Each text is read as a packet, and what
/// it was understood as says the same when it is written. An event is what one finds by reading all parts
/// of its JSON.
///
/// # Panics
/// When that does not hold.
pub fn websocket(bytes: &[u8]) {
    for heard in heard(bytes) {
        let Heard::Text(text) = heard else { continue };
        let Some(EnginePacket::Message(message)) = EnginePacket::read(&text) else { continue };
        let Some(packet) = Packet::read(message) else { continue };
        // Before the same JSON once with all that may stand there: none of it is passed over.
        let kind = Kind::Event;
        let full = Packet { kind, attachments: 2, namespace: "/n", ack: Some(1), ..packet };
        for packet in [packet, full] {
            assert_eq!(Packet::read(&written(&packet)), Some(packet));
        }
        let event = Event::read(packet.json).map(|it| (it.name.to_string(), it.payload()));
        assert_eq!(event, name_and_payload(packet.json));
    }
}

fn written(packet: &Packet<'_>) -> String {
    let Packet { kind, attachments, namespace, ack, json } = *packet;
    let start = match (kind, attachments) {
        (Kind::Connect, _) => "0".to_owned(),
        (Kind::Disconnect, _) => "1".to_owned(),
        (Kind::Event, 0) => "2".to_owned(),
        (Kind::Ack, 0) => "3".to_owned(),
        (Kind::Event, some) => format!("5{some}-"),
        (Kind::Ack, some) => format!("6{some}-"),
    };
    let ack = ack.map(|id| id.to_string()).unwrap_or_default();
    format!("{start}{namespace},{ack}{json}")
}

fn name_and_payload(json: &str) -> Option<(String, Value)> {
    let parts: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let name = serde_json::from_str(parts.first()?.get()).ok()?;
    let payload = parts.get(1).and_then(|payload| serde_json::from_str(payload.get()).ok());
    Some((name, payload.unwrap_or_default()))
}
