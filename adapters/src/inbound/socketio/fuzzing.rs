use belfry_domain::UserId;
use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::credentials::{ConnectCredentials, RequestCredentials, resume_point};
use super::engine::EngineMessage;
use super::engine::fuzzing::split_and_read;
use super::payload::{PageNumbers, check_keys, ids, one_id, requested_page};
use super::protocol::{ClientEvent, Packet, PacketKind};
use crate::fuzzing::split_first_line;
use crate::transport::Frame;
use crate::transport::fuzzing::frames;
use crate::wire::socket::ClientMessage;

/// Reads the bytes that a client sends over a WebSocket. The first line sets the sizes of the reads, as [`frames`]
/// describes. Checks that each valid packet is the same after it is written and read again, and that an event's name
/// and first argument match those that `serde_json` finds when it parses the whole array.
///
/// # Panics
/// If a check fails.
pub fn websocket(bytes: &[u8]) {
    for frame in frames(bytes) {
        let Frame::Text(text) = frame else { continue };
        // `4` is Engine.IO's message packet.
        let Some(packet) = text.strip_prefix('4').and_then(Packet::read) else { continue };
        // The same JSON after all optional parts of a packet, to check that these are read.
        let full = Packet {
            kind: PacketKind::Event,
            attachments: 2,
            namespace: "/n",
            ack: Some(1),
            ..packet
        };
        for packet in [packet, full] {
            assert_eq!(Packet::read(&written(&packet)), Some(packet));
        }
        let event = ClientEvent::read(packet.json, None, Vec::new());
        let event =
            event.map(|event| (event.name.to_string(), event.payload().unwrap_or_default()));
        assert_eq!(event, name_and_payload(packet.json));
    }
}

/// Reads the body of a polling client's POST request. Checks that it is split at Engine.IO's separators (U+001E), and
/// that each packet is read or rejected.
///
/// # Panics
/// If a check fails.
pub fn posted_packets(bytes: &[u8]) {
    let Ok(body) = std::str::from_utf8(bytes) else { return };
    let packets = split_and_read(body);
    assert_eq!(packets.len(), body.split('\u{1e}').count());
    for (packet, read) in packets {
        match read {
            Some(EngineMessage::Text(text)) => {
                assert_eq!(packet.strip_prefix('4'), Some(text.as_str()));
                if let Some(packet) = Packet::read(&text) {
                    assert_eq!(Packet::read(&written(&packet)), Some(packet));
                }
            }
            Some(EngineMessage::Binary(bytes)) => assert!(bytes.len() < packet.len()),
            None => {}
        }
    }
}

/// The text of a packet. Its type is a digit: an event or ack with attachments has another type than one without.
fn written(packet: &Packet<'_>) -> String {
    let Packet { kind, attachments, namespace, ack, json } = *packet;
    let start = match (kind, attachments) {
        (PacketKind::Connect, _) => "0".to_owned(),
        (PacketKind::Disconnect, _) => "1".to_owned(),
        (PacketKind::Event, 0) => "2".to_owned(),
        (PacketKind::Ack, 0) => "3".to_owned(),
        (PacketKind::Event, some) => format!("5{some}-"),
        (PacketKind::Ack, some) => format!("6{some}-"),
    };
    let ack = ack.map(|id| id.to_string()).unwrap_or_default();
    format!("{start}{namespace},{ack}{json}")
}

/// The name and the first argument of an event, by `serde_json`.
fn name_and_payload(json: &str) -> Option<(String, Value)> {
    let parts: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let name = serde_json::from_str(parts.first()?.get()).ok()?;
    let payload = parts.get(1).and_then(|payload| serde_json::from_str(payload.get()).ok());
    Some((name, payload.unwrap_or_default()))
}

/// Uses the first line as the query and as the `Authorization` header of a request. Uses the rest as the JSON payload
/// of a CONNECT and of every event. Checks that a payload with one id is also read as a list of that id.
///
/// # Panics
/// If the check fails.
pub fn payload(bytes: &[u8]) {
    let (line, json) = split_first_line(bytes);
    let Ok(payload) = serde_json::from_slice::<Value>(json) else { return };
    let mut request = Request::new(());
    if let Ok(header) = HeaderValue::from_bytes(line) {
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    if let Ok(uri) = [b"/socket.io/?", line].concat().as_slice().try_into() {
        *request.uri_mut() = uri;
    }
    let request = request.into_parts().0;
    for token_in_query in [false, true] {
        let request =
            RequestCredentials::read(&request.headers, &request.uri, None, token_in_query);
        let auth = to_raw_value(&payload).expect("a value serializes");
        let _ = ConnectCredentials::read(&auth, &request);
    }
    let _ = resume_point(&payload);
    if let Ok(id) = one_id(payload.clone()) {
        let all = ids(payload.clone()).expect("one id is a list of one id");
        assert_eq!(all, [id]);
    }
    let _ = ids(payload.clone());
    let user = UserId::parse("ada").expect("it is valid");
    for message in ClientMessage::WITH_ALIASES {
        let _ = check_keys(&payload, message, &user);
    }
    let _ = requested_page(payload, PageNumbers::FirstPage);
}
