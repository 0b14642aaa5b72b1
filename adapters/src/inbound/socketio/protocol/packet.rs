//! The packets of Socket.IO (protocol version 5) in the messages of Engine.IO.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::transport::text_frame;

/// The maximum number of attachments of a packet. The events of Belfry's clients have none. A client that sends a few
/// receives the error `payload_invalid`; one that sends more is disconnected.
pub(super) const MAX_ATTACHMENTS: usize = 16;

/// A packet in its text form, `<type>[<attachments>-][<namespace>,][<acknowledgement id>][<JSON>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub(crate) kind: PacketKind,
    /// How many binary messages follow as its attachments.
    pub(crate) attachments: usize,
    pub(crate) namespace: &'a str,
    /// The acknowledgement id. An event requests an acknowledgement with this id; an ack packet repeats the id of its
    /// event.
    pub(crate) ack: Option<u64>,
    pub(crate) json: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    Connect,
    Disconnect,
    Event,
    Ack,
}

impl<'a> Packet<'a> {
    /// Parses a packet. `None` if it is not one that a client may send. The JSON is not parsed here.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let kind = match text.as_bytes().first()? {
            b'0' => PacketKind::Connect,
            b'1' => PacketKind::Disconnect,
            // 5 and 6 are the types of an event and an ack with attachments.
            b'2' | b'5' => PacketKind::Event,
            b'3' | b'6' => PacketKind::Ack,
            _ => return None,
        };
        let is_binary = matches!(text.as_bytes()[0], b'5' | b'6');
        let (attachments, rest) = match text.get(1..)? {
            rest if is_binary => {
                let (number, rest) = digits(rest);
                (number.parse().ok()?, rest.strip_prefix('-')?)
            }
            rest => (0, rest),
        };
        let (namespace, rest) = match rest.split_once(',') {
            _ if !rest.starts_with('/') => ("/", rest),
            Some(both) => both,
            // The comma may be missing at the end of a packet.
            None => (rest, ""),
        };
        let (number, json) = digits(rest);
        // An id that is out of range is ignored.
        let ack = number.parse().ok();
        if kind == PacketKind::Ack && ack.is_none() {
            return None;
        }
        Some(Self { kind, attachments, namespace, ack, json })
    }
}

/// Splits a text after its leading digits.
fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// An event of a client.
#[derive(Debug)]
pub struct ClientEvent {
    /// The event's name.
    pub name: Box<str>,
    /// The arguments. They are not parsed yet, so that a rejected event costs no parsing.
    pub arguments: Vec<Box<RawValue>>,
    /// The binary attachments that placeholders in the arguments refer to.
    pub attachments: Vec<Bytes>,
    /// The id of the acknowledgement that the client requests.
    pub ack: Option<u64>,
}

impl ClientEvent {
    /// Reads an event from its JSON array. `None` if it is malformed.
    pub(crate) fn read(json: &str, ack: Option<u64>, attachments: Vec<Bytes>) -> Option<Self> {
        let EventArray { name, arguments } = serde_json::from_str(json).ok()?;
        Some(Self { name, arguments, attachments, ack })
    }

    /// The size of the event's texts and attachments in bytes.
    pub(super) fn size(&self) -> usize {
        let arguments = self.arguments.iter().map(|argument| argument.get().len());
        let attachments = self.attachments.iter().map(Bytes::len);
        self.name.len() + arguments.chain(attachments).sum::<usize>()
    }

    /// Parses the first argument; null if it is missing. Fails if `serde_json` cannot represent it, such as a number
    /// that is out of range.
    pub(crate) fn payload(&self) -> Result<Value, serde_json::Error> {
        self.arguments.first().map_or(Ok(Value::Null), |raw| serde_json::from_str(raw.get()))
    }
}

/// The maximum number of arguments of an event. The events of Belfry's clients have one. Short arguments need many
/// times as much memory as their text.
const MAX_ARGUMENTS: usize = 32;

/// The JSON array of an event: its name, then its arguments.
struct EventArray {
    name: Box<str>,
    arguments: Vec<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for EventArray {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArrayVisitor;

        impl<'de> Visitor<'de> for ArrayVisitor {
            type Value = EventArray;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a name and at most {MAX_ARGUMENTS} arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<EventArray, A::Error> {
                let name =
                    array.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let mut arguments = Vec::new();
                while let Some(argument) = array.next_element()? {
                    if arguments.len() == MAX_ARGUMENTS {
                        // The length of the array: the name, and one argument too many.
                        return Err(A::Error::invalid_length(MAX_ARGUMENTS + 2, &self));
                    }
                    arguments.push(argument);
                }
                Ok(EventArray { name, arguments })
            }
        }

        deserializer.deserialize_seq(ArrayVisitor)
    }
}

/// The response to a CONNECT to a namespace that does not exist.
pub(super) fn invalid_namespace(path: &str) -> Bytes {
    // A message packet of Engine.IO (`4`) with a CONNECT_ERROR packet of Socket.IO (`4`).
    text_frame(&["44", path, ",{\"message\":\"Invalid namespace\"}"])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn packet<'a>(
        kind: PacketKind,
        namespace: &'a str,
        ack: Option<u64>,
        json: &'a str,
    ) -> Packet<'a> {
        Packet { kind, attachments: 0, namespace, ack, json }
    }

    #[test]
    fn packets_are_read_by_their_type() {
        use PacketKind::{Ack, Connect, Disconnect, Event};
        for (text, expected) in [
            ("0", packet(Connect, "/", None, "")),
            ("0{\"token\":\"t\"}", packet(Connect, "/", None, "{\"token\":\"t\"}")),
            ("0/notifications", packet(Connect, "/notifications", None, "")),
            ("0/notifications,{}", packet(Connect, "/notifications", None, "{}")),
            ("0/ü,{}", packet(Connect, "/ü", None, "{}")),
            ("1", packet(Disconnect, "/", None, "")),
            ("1/notifications,", packet(Disconnect, "/notifications", None, "")),
            ("2[\"a\",1]", packet(Event, "/", None, "[\"a\",1]")),
            ("217[\"a\"]", packet(Event, "/", Some(17), "[\"a\"]")),
            ("2/n,0[\"a,b\"]", packet(Event, "/n", Some(0), "[\"a,b\"]")),
            ("299999999999999999999999[\"a\"]", packet(Event, "/", None, "[\"a\"]")),
            ("31[]", packet(Ack, "/", Some(1), "[]")),
        ] {
            assert_eq!(Packet::read(text), Some(expected), "{text}");
        }
        let binary = Packet::read("52-/n,3[\"a\"]").unwrap();
        let expected = Packet { attachments: 2, ..packet(Event, "/n", Some(3), "[\"a\"]") };
        assert_eq!(binary, expected);
        for text in ["", "4{}", "7", "x", "ü", "3[]", "399999999999999999999[]", "5[\"a\"]"] {
            assert_eq!(Packet::read(text), None, "{text}");
        }
        for text in ["5x-[]", "5-[]", "51é", "599999999999999999999-[]", "6"] {
            assert_eq!(Packet::read(text), None, "{text}");
        }
    }

    #[test]
    fn event_has_a_name_and_arguments() {
        let read = |text: &str| {
            let event = ClientEvent::read(text, None, Vec::new())?;
            Some((event.name.to_string(), event.payload().ok()))
        };
        let event = |name: &str, payload| Some((name.to_owned(), Some(payload)));
        let unreadable = Some(("a".to_owned(), None));
        assert_eq!(read("[\"a\"]"), event("a", Value::Null));
        assert_eq!(read(" [ \"a\" , {\"b\":[1]} , 2 ] "), event("a", json!({ "b": [1] })));
        assert_eq!(read("[\"\\u00fc\",\"x\"]"), event("ü", json!("x")));
        assert_eq!(read("[\"a\",\"\\ud800\"]"), unreadable);
        assert_eq!(read("[\"a\",{\"limit\":1e400}]"), unreadable);
        let deep = format!("[\"a\",{}{}]", "[".repeat(40_000), "]".repeat(40_000));
        assert_eq!(read(&deep), unreadable);
        let all =
            ClientEvent::read(r#"["a",1,"2",{"3":[true]}]"#, None, Vec::new()).unwrap().arguments;
        let all: Vec<_> = all.iter().map(|argument| argument.get()).collect();
        assert_eq!(all, ["1", "\"2\"", r#"{"3":[true]}"#]);
        let many = |count| format!("[\"a\"{}]", ",1".repeat(count));
        assert_eq!(read(&many(MAX_ARGUMENTS)), event("a", json!(1)));
        assert_eq!(read(&many(MAX_ARGUMENTS + 1)), None);
        for none in ["", "[", "[]", "{}", "[7]", "[{\"a\":1}]", "[\"a\"", "[\"a\"]x", "\"a\""] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_rejected(text: String) {
            if let Some(packet) = Packet::read(&text) {
                prop_assert!(packet.namespace.starts_with('/') && text.ends_with(packet.json));
                let _ = ClientEvent::read(packet.json, packet.ack, Vec::new());
            }
        }

        #[test]
        fn packet_of_a_client_is_read(
            namespace in "/[a-zü]{0,10}",
            ack: Option<u32>,
            attachments in 0..20_usize,
            name in "\\PC{0,20}",
            payload in "\\PC{0,20}",
        ) {
            let id = ack.map(|id| id.to_string()).unwrap_or_default();
            let json = json!([name, payload]).to_string();
            let nsp = if namespace == "/" { String::new() } else { format!("{namespace},") };
            let text = format!("5{attachments}-{nsp}{id}{json}");
            let packet = Packet::read(&text).unwrap();
            prop_assert_eq!(packet.attachments, attachments);
            prop_assert_eq!(packet.namespace, namespace);
            prop_assert_eq!(packet.ack, ack.map(u64::from));
            let event = ClientEvent::read(packet.json, packet.ack, Vec::new()).unwrap();
            prop_assert_eq!(event.name.as_ref(), name);
            prop_assert_eq!(event.payload().unwrap(), Value::String(payload));
        }
    }
}
