//! Packets of a Socket.IO server (Engine.IO 4, Socket.IO protocol 5, default namespace).

use memchr::memmem;

/// A packet, as far as the tool needs to distinguish it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// Engine.IO's open packet: the client may sign in.
    Open,
    /// Engine.IO's ping, which the client answers with a pong.
    Ping,
    /// The server accepted the connect to the namespace.
    SignedIn,
    /// The server rejected the connect to the namespace.
    ConnectError,
    /// The server disconnected the client from the namespace.
    Disconnected,
    /// `notification:new`, with `data.seq` and `data.at` if present.
    New(Option<Stamp>),
    UnreadCount,
    Other,
}

/// The number and the time that the producer wrote into an event's `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The event's number.
    pub(crate) seq: u64,
    /// When it was due to be published, in nanoseconds of the tool's clock.
    pub(crate) at: u64,
}

const NEW: &[u8] = br#"42["notification:new","#;
const UNREAD_COUNT: &[u8] = br#"42["notification:unread_count","#;

/// Reads a packet by its first characters: `0` open, `2` ping, `40` connected, `41` disconnected, `42` event, `44`
/// connect error.
pub(crate) fn read(text: &[u8]) -> Packet {
    match text {
        b"2" => Packet::Ping,
        [b'0', b'{', ..] => Packet::Open,
        [b'4', b'0', ..] => Packet::SignedIn,
        [b'4', b'1', ..] => Packet::Disconnected,
        [b'4', b'4', ..] => Packet::ConnectError,
        text if text.starts_with(NEW) => Packet::New(stamp(&text[NEW.len()..])),
        text if text.starts_with(UNREAD_COUNT) => Packet::UnreadCount,
        _ => Packet::Other,
    }
}

/// Searches the text for the numbers. Parsing the JSON would cost more CPU time than all other work of the client.
fn stamp(notification: &[u8]) -> Option<Stamp> {
    Some(Stamp { seq: number(notification, b"\"seq\":")?, at: number(notification, b"\"at\":")? })
}

/// The number that follows a key.
pub(crate) fn number(json: &[u8], key: &[u8]) -> Option<u64> {
    let value = &json[memmem::find(json, key)? + key.len()..];
    let value = value.trim_ascii_start();
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        number =
            Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_found_in_a_new_notification() {
        let stamp = Some(Stamp { seq: 12, at: 3_400 });
        for data in [r#"{"seq":12,"at":3400}"#, r#"{"at": 3400, "seq": 12}"#] {
            let text = format!(
                r#"42["notification:new",{{"createdAt":"2026","data":{data},"isRead":false}}]"#
            );
            assert_eq!(read(text.as_bytes()), Packet::New(stamp));
        }
        assert_eq!(read(br#"42["notification:new",{"data":{"seq":1}}]"#), Packet::New(None));
    }

    #[test]
    fn other_packets_are_distinguished_by_their_prefix() {
        for (text, packet) in [
            (&br#"0{"sid":"a","pingInterval":25000}"#[..], Packet::Open),
            (b"2", Packet::Ping),
            (br#"40{"sid":"a"}"#, Packet::SignedIn),
            (br#"44{"message":"token_invalid"}"#, Packet::ConnectError),
            (b"41", Packet::Disconnected),
            (br#"42["notification:unread_count",{"count":5}]"#, Packet::UnreadCount),
            (br#"42["notification:sync",{"epoch":"a"}]"#, Packet::Other),
            (b"", Packet::Other),
        ] {
            assert_eq!(read(text), packet);
        }
    }
}
