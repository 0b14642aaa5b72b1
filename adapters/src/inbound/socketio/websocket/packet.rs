//! Packets as they stand in text frames: of Engine.IO (protocol version 4), and within its messages those of
//! Socket.IO (version 5).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use socketioxide::socket::Sid;

use crate::inbound::socketio::answer::Reply;
use crate::inbound::socketio::service::SocketIoSettings;
use crate::outbound::socketio::Namespace;
use crate::transport::text_frame;

/// How many attachments a packet may announce. No event of ours has any; a client that sends a few hears
/// that they are not what was asked for.
pub(in crate::inbound::socketio) const ATTACHMENTS: usize = 16;

/// A packet of Engine.IO's that a client may send on an open WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EnginePacket<'a> {
    Close,
    /// Either is a sign of life. Pings are the server's to send, but some clients do.
    PingOrPong,
    Message(&'a str),
}

impl<'a> EnginePacket<'a> {
    pub(super) fn read(text: &'a str) -> Option<Self> {
        // What is behind the type is only looked at where it makes another packet of it.
        match text.as_bytes().first()? {
            b'1' => Some(Self::Close),
            // A probe belongs to an upgrade, and this is what others upgrade to.
            b'2' | b'3' if text.get(1..) == Some("probe") => None,
            b'2' | b'3' => Some(Self::PingOrPong),
            b'4' => text.get(1..).map(Self::Message),
            _ => None,
        }
    }
}

/// A packet of Socket.IO's:
/// `<type>[<attachments>-][<namespace>,][<acknowledgement id>][<JSON>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) kind: Kind,
    /// How many binary frames belong to it and follow it.
    pub(super) attachments: usize,
    pub(super) namespace: &'a str,
    /// The acknowledgement that it asks for, or is.
    pub(super) ack: Option<u64>,
    pub(super) json: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
}

impl<'a> Packet<'a> {
    /// `None` if it is none that a client may send.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let kind = match text.as_bytes().first()? {
            b'0' => Kind::Connect,
            b'1' => Kind::Disconnect,
            b'2' | b'5' => Kind::Event,
            b'3' | b'6' => Kind::Ack,
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
            // At the end of a packet the comma may be missing.
            None => (rest, ""),
        };
        let (number, json) = digits(rest);
        // Beyond all numbers it is none. What is no JSON is not told apart from it, and is dealt with later.
        let ack = number.parse().ok();
        if kind == Kind::Ack && ack.is_none() {
            return None;
        }
        Some(Self { kind, attachments, namespace, ack, json })
    }
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// What an event packet carries: `[name, …arguments]`.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: Box<str>,
    /// The first argument, unread: one that is refused is not worth the reading.
    payload: Option<Box<RawValue>>,
}

impl Event {
    /// `None` if it is no event.
    pub(super) fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// A message without a payload, or with one that nobody can read, is as good as one with null.
    pub(super) fn payload(self) -> Value {
        let read = |raw: Box<RawValue>| serde_json::from_str(raw.get()).ok();
        self.payload.and_then(read).unwrap_or(Value::Null)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Arguments;

        impl<'de> Visitor<'de> for Arguments {
            type Value = Event;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event's name and arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut arguments: A) -> Result<Event, A::Error> {
                let name = arguments.next_element::<Cow<'de, str>>()?;
                let name = name.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                let payload = arguments.next_element()?;
                while arguments.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Event { name: name.into(), payload })
            }
        }

        deserializer.deserialize_seq(Arguments)
    }
}

/// Engine.IO's ping.
pub(super) fn ping() -> Bytes {
    text_frame(&["2"])
}

/// Engine.IO's close.
pub(super) fn close() -> Bytes {
    text_frame(&["1"])
}

/// What Engine.IO begins with.
pub(super) fn open(sid: Sid, settings: &SocketIoSettings) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Open<'a> {
        sid: &'a str,
        upgrades: [&'a str; 0],
        ping_interval: u64,
        ping_timeout: u64,
        max_payload: usize,
    }
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    text_frame(&[
        "0",
        &json(&Open {
            sid: sid.as_str(),
            upgrades: [],
            ping_interval: millis(settings.ping_interval),
            ping_timeout: millis(settings.ping_timeout),
            max_payload: settings.max_payload,
        }),
    ])
}

/// A device is in.
pub(super) fn connected(namespace: Namespace, sid: Sid) -> Bytes {
    // Made of letters, digits, `-` and `_`.
    text_frame(&["40", namespace.in_packet(), "{\"sid\":\"", sid.as_str(), "\"}"])
}

/// A device is not let in, for the reason of that code.
pub(super) fn connect_error(namespace: Namespace, code: &str) -> Bytes {
    text_frame(&["44", namespace.in_packet(), &message(code)])
}

/// There is no such namespace.
pub(super) fn invalid_namespace(path: &str) -> Bytes {
    text_frame(&["44", path, ",", &message("Invalid namespace")])
}

fn message(message: &str) -> String {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    json(&Message { message })
}

/// The answer to an event, where there is to be one.
pub(super) fn reply(namespace: Namespace, ack: Option<u64>, reply: &Reply) -> Option<Bytes> {
    let namespace = namespace.in_packet();
    match (ack, reply) {
        (Some(id), _) => {
            Some(text_frame(&["43", namespace, &id.to_string(), "[", &json(reply), "]"]))
        }
        (None, Reply::Failed { .. }) => {
            let event = Reply::EXCEPTION;
            Some(text_frame(&["42", namespace, "[\"", event, "\",", &json(reply), "]"]))
        }
        (None, Reply::Done { .. }) => None,
    }
}

fn json(value: &impl Serialize) -> String {
    // Fails for maps with other keys than strings, and nothing here has any.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn packet<'a>(kind: Kind, namespace: &'a str, ack: Option<u64>, json: &'a str) -> Packet<'a> {
        Packet { kind, attachments: 0, namespace, ack, json }
    }

    #[test]
    fn packets_of_engine_io_are_told_apart() {
        use EnginePacket::{Close, Message, PingOrPong};
        for (text, expected) in [
            ("1", Some(Close)),
            ("2", Some(PingOrPong)),
            ("3", Some(PingOrPong)),
            ("3x", Some(PingOrPong)),
            ("4", Some(Message(""))),
            ("42[\"ü\"]", Some(Message("2[\"ü\"]"))),
            ("", None),
            ("0{}", None),
            ("2probe", None),
            ("3probe", None),
            ("5", None),
            ("6", None),
            ("9", None),
            ("bAAAA", None),
            ("ü", None),
        ] {
            assert_eq!(EnginePacket::read(text), expected, "{text}");
        }
    }

    #[test]
    fn packets_of_socket_io_are_told_apart() {
        use Kind::{Ack, Connect, Disconnect, Event};
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
    fn an_event_has_a_name_and_its_first_argument() {
        let read = |text: &str| Event::read(text).map(|it| (it.name.to_string(), it.payload()));
        let event = |name: &str, payload| Some((name.to_owned(), payload));
        assert_eq!(read("[\"a\"]"), event("a", Value::Null));
        assert_eq!(read(" [ \"a\" , {\"b\":[1]} , 2 ] "), event("a", json!({ "b": [1] })));
        assert_eq!(read("[\"\\u00fc\",\"x\"]"), event("ü", json!("x")));
        assert_eq!(read("[\"a\",\"\\ud800\"]"), event("a", Value::Null));
        let deep = format!("[\"a\",{}{}]", "[".repeat(40_000), "]".repeat(40_000));
        assert_eq!(read(&deep), event("a", Value::Null));
        for none in ["", "[", "[]", "{}", "[7]", "[{\"a\":1}]", "[\"a\"", "[\"a\"]x", "\"a\""] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    fn said(frame: Option<Bytes>) -> Option<String> {
        frame.map(|frame| {
            let head = if frame[1] < 126 { 2 } else { 4 };
            String::from_utf8(frame[head..].to_vec()).unwrap()
        })
    }

    #[test]
    fn a_greeting_is_as_the_library_has_it() {
        let sid: Sid = "AA9AAA0AAzAAAAHs".parse().unwrap();
        assert_eq!(
            said(Some(open(sid, &SocketIoSettings::default()))).unwrap(),
            r#"0{"sid":"AA9AAA0AAzAAAAHs","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100000}"#
        );
        let connected = said(Some(connected(Namespace::Notifications, sid))).unwrap();
        assert_eq!(connected, r#"40/notifications,{"sid":"AA9AAA0AAzAAAAHs"}"#);
        let refused = said(Some(connect_error(Namespace::Root, "token_invalid"))).unwrap();
        assert_eq!(refused, r#"44{"message":"token_invalid"}"#);
        let nowhere = said(Some(invalid_namespace("/admin"))).unwrap();
        assert_eq!(nowhere, r#"44/admin,{"message":"Invalid namespace"}"#);
    }

    #[test]
    fn an_event_is_acknowledged_or_fails_by_an_exception() {
        let done = Reply::Done { data: json!({ "count": 1 }), status: "ok" };
        let failed =
            Reply::Failed { status: "error", code: "not_found", message: "\"x\"".to_owned() };
        let to = |namespace, ack, reply: &Reply| said(super::reply(namespace, ack, reply));
        assert_eq!(
            to(Namespace::Notifications, Some(7), &done).unwrap(),
            r#"43/notifications,7[{"data":{"count":1},"status":"ok"}]"#
        );
        assert_eq!(to(Namespace::Root, None, &done), None);
        assert_eq!(
            to(Namespace::Root, None, &failed).unwrap(),
            r#"42["exception",{"status":"error","code":"not_found","message":"\"x\""}]"#
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text: String) {
            let _ = EnginePacket::read(&text);
            if let Some(packet) = Packet::read(&text) {
                prop_assert!(packet.namespace.starts_with('/') && text.ends_with(packet.json));
                let _ = Event::read(packet.json);
            }
        }

        #[test]
        fn what_a_client_says_is_understood(
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
            let event = Event::read(packet.json).unwrap();
            prop_assert_eq!(event.name.as_ref(), name);
            prop_assert_eq!(event.payload(), Value::String(payload));
        }
    }
}
