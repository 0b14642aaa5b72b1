use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engineioxide_core::TransportType;
use serde::Serialize;

use super::handler::{EngineMessage, Violation};
use super::session_id::SessionId;
use super::settings::EngineSettings;

/// A packet that a client may send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EnginePacket {
    Close,
    /// A ping or a pong shows that the client is alive. Only the server should send pings in this version of the
    /// protocol, but some clients send them as well.
    PingOrPong,
    /// The first packet of an upgrade.
    Probe,
    /// The last packet of an upgrade.
    Upgrade,
    Message(EngineMessage),
}

impl EnginePacket {
    /// Reads a packet from a text frame.
    pub(super) fn read(mut text: String) -> Result<Self, Violation> {
        // Data after the type is ignored unless it changes the meaning.
        match text.as_bytes().first().ok_or(Violation)? {
            b'1' => Ok(Self::Close),
            b'2' if text.get(1..) == Some("probe") => Ok(Self::Probe),
            b'3' if text.get(1..) == Some("probe") => Err(Violation),
            b'2' | b'3' => Ok(Self::PingOrPong),
            b'4' => {
                text.remove(0);
                Ok(Self::Message(EngineMessage::Text(text)))
            }
            b'5' => Ok(Self::Upgrade),
            _ => Err(Violation),
        }
    }

    /// Reads a packet from the body of a request, where binary messages are encoded in Base64.
    pub(super) fn read_polled(text: &str) -> Result<Self, Violation> {
        match text.strip_prefix('b') {
            Some(base64) => {
                let bytes = BASE64_STANDARD.decode(base64).map_err(|_| Violation)?;
                Ok(Self::Message(EngineMessage::Binary(bytes)))
            }
            None => Self::read(text.to_owned()),
        }
    }
}

/// The `open` packet, the first packet of a session.
pub(super) fn open(
    sid: SessionId,
    upgrades: &[TransportType],
    settings: &EngineSettings,
) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Open<'a> {
        sid: String,
        upgrades: &'a [TransportType],
        ping_interval: u64,
        ping_timeout: u64,
        max_payload: usize,
    }
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let open = Open {
        sid: sid.to_string(),
        upgrades,
        ping_interval: millis(settings.ping_interval),
        ping_timeout: millis(settings.ping_timeout),
        max_payload: settings.max_payload,
    };
    // Serialization fails only for maps with other keys than strings, and there are none.
    format!("0{}", serde_json::to_string(&open).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_by_their_type() {
        let text = |text: &str| Ok(EnginePacket::Message(EngineMessage::Text(text.to_owned())));
        for (packet, expected) in [
            ("1", Ok(EnginePacket::Close)),
            ("2", Ok(EnginePacket::PingOrPong)),
            ("3", Ok(EnginePacket::PingOrPong)),
            ("3x", Ok(EnginePacket::PingOrPong)),
            ("2probe", Ok(EnginePacket::Probe)),
            ("5", Ok(EnginePacket::Upgrade)),
            ("4", text("")),
            ("42[\"ü\"]", text("2[\"ü\"]")),
            ("", Err(Violation)),
            ("0{}", Err(Violation)),
            ("3probe", Err(Violation)),
            ("6", Err(Violation)),
            ("9", Err(Violation)),
            ("ü", Err(Violation)),
        ] {
            assert_eq!(EnginePacket::read(packet.to_owned()), expected, "{packet}");
            assert_eq!(EnginePacket::read_polled(packet), expected, "{packet}");
        }
        let bytes = Ok(EnginePacket::Message(EngineMessage::Binary(vec![1, 2, 3, 4])));
        assert_eq!(EnginePacket::read_polled("bAQIDBA=="), bytes);
        assert_eq!(EnginePacket::read_polled("b*"), Err(Violation));
        assert_eq!(EnginePacket::read("bAQIDBA==".to_owned()), Err(Violation));
    }

    #[test]
    fn open_packet_has_the_fields_of_the_protocol() {
        let sid = SessionId::parse(&"A".repeat(32)).unwrap();
        let settings = EngineSettings::default();
        assert_eq!(
            open(sid, &[TransportType::Websocket], &settings),
            r#"0{"sid":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":262144}"#
        );
    }
}
