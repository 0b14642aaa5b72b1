//! Engine.IO and Socket.IO as no client library speaks them: packets out of order, without end or
//! without sense, on the attacker's own connection and on other people's sessions.

use std::iter;

use belfry_tests::http::{Answer, Http, send};
use belfry_tests::raw_http::{exchange, statuses};
use belfry_tests::raw_socket::RawSocket;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::Scene;
use crate::setup::Setup;

on_both_setups!(
    packets_out_of_order,
    events_about_somebody_else,
    polling_sessions_of_somebody_else
);

/// What becomes of the connection on which it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The server closes it.
    Ends,
    /// Nothing: it goes on as if nothing had been said.
    PassedOver,
}
use Outcome::{Ends, PassedOver};

/// Insists on it. Whether a session goes on shows in what it answers, and that is the attacker's own: it
/// lists nothing of the victim's. One that ends may answer something before it does, so it is not asked.
async fn comes_to(socket: &mut RawSocket, expected: Outcome, secret: &str) {
    if expected == PassedOver {
        socket.send(r#"42977["notification:list"]"#).await;
    }
    while let Some(frame) = socket.frame().await {
        assert!(!frame.contains(secret), "{frame}");
        if frame.starts_with("43977[") {
            assert!(frame.contains(r#""status":"ok""#), "{frame}");
            return;
        }
    }
    assert_eq!(expected, Ends);
}

fn text(text: impl Into<String>) -> Vec<Message> {
    vec![Message::text(text.into())]
}

fn instead_of_attachments(announcement: &str) -> Vec<Message> {
    vec![Message::text(announcement), Message::text(r#"42["notification:list"]"#)]
}

fn frames(frames: impl IntoIterator<Item = Frame>) -> Vec<Message> {
    frames.into_iter().map(Message::Frame).collect()
}

fn data(code: Data, last: bool, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::message(payload.into(), OpCode::Data(code), last)
}

fn control(code: Control, last: bool, payload: Vec<u8>) -> Frame {
    let opcode = OpCode::Control(code);
    let header = FrameHeader { is_final: last, opcode, ..FrameHeader::default() };
    Frame::from_payload(header, payload.into())
}

async fn packets_out_of_order(setup: Setup) {
    // Some attackers are only disconnected when they have not signed in in time.
    let place = setup.own_with(|builder| builder.setting("socket.connect_timeout", "3s")).await;
    let scene = Scene::at(place.into()).await;
    let attacker = scene.attacker();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut reserved = Frame::ping(vec![]);
    reserved.header_mut().rsv1 = true;
    let mut endless = vec![data(Data::Text, false, *b"42[\"")];
    endless.extend((0..300).map(|_| data(Data::Continue, false, vec![b'x'; 1_000])));
    for (attack, sent, expected) in [
        ("an unknown Engine.IO packet", text("9"), Ends),
        ("a letter for a packet", text("x"), Ends),
        ("an empty packet", text(""), Ends),
        ("Engine.IO's greeting", text("0{}"), Ends),
        ("an upgrade on what is upgraded", text("5"), Ends),
        ("a probe on what is upgraded", text("2probe"), Ends),
        ("a ping that is the server's to send", text("2"), PassedOver),
        ("a pong for no ping", text("3"), PassedOver),
        ("a thousand pongs", vec![Message::text("3"); 1_000], PassedOver),
        ("Engine.IO's nothing", text("6"), Ends),
        ("Engine.IO's close", text("1"), Ends),
        ("an unknown Socket.IO packet", text("49"), Ends),
        ("a Socket.IO packet of nothing", text("4"), Ends),
        ("the server's own refusal", text(r#"44{"message":"token_invalid"}"#), Ends),
        (
            "a second sign-in",
            text(format!("40{}", json!({ "token": attacker.token() }))),
            PassedOver,
        ),
        ("a second sign-in that is bad", text(r#"40{"token":"bad"}"#), Ends),
        ("an unknown namespace", text("40/admin,"), PassedOver),
        ("a namespace that is a path", text("40/../../etc/passwd,"), PassedOver),
        ("a namespace of 50 kB", text(format!("40/{},", "n".repeat(50_000))), PassedOver),
        (
            "an event in a namespace that it is not in",
            text(r#"42/notifications,["notification:list"]"#),
            PassedOver,
        ),
        ("an event in an unknown namespace", text(r#"42/admin,["notification:list"]"#), PassedOver),
        ("an ack for nothing", text("431[]"), PassedOver),
        ("an ack of a number beyond all numbers", text("4399999999999999999999999[]"), Ends),
        (
            "an event with such a number",
            text(r#"4299999999999999999999999["notification:list"]"#),
            PassedOver,
        ),
        (
            "an ack for everything",
            (0..1_000).map(|id| Message::text(format!("43{id}[]"))).collect(),
            PassedOver,
        ),
        ("an event that is no JSON", text("42["), Ends),
        ("an event that is an object", text("42{}"), Ends),
        ("an event without a name", text("42[]"), Ends),
        ("an event whose name is a number", text("42[7]"), Ends),
        ("an event whose name is an object", text(r#"42[{"a":1}]"#), Ends),
        ("an event of the library's own", text(r#"42["disconnect"]"#), PassedOver),
        ("an event called connect", text(r#"42["connect",{}]"#), PassedOver),
        (
            "an event that only the server tells",
            text(r#"42["notification:new",{"id":"x"}]"#),
            PassedOver,
        ),
        ("an event nested 40,000 deep", text(format!(r#"42["x",{}]"#, nested(40_000))), PassedOver),
        ("an event nested 100 deep", text(format!(r#"42["x",{}]"#, nested(100))), PassedOver),
        ("an event of 99 kB", text(format!(r#"42["x","{}"]"#, "y".repeat(99_000))), PassedOver),
        ("an event of 300 kB", text(format!(r#"42["x","{}"]"#, "y".repeat(300_000))), Ends),
        ("half a surrogate", text(r#"42["x","\ud800"]"#), PassedOver),
        ("an attachment that nobody announced", vec![Message::binary(vec![1, 2, 3])], Ends),
        (
            "a text in the place of an attachment",
            instead_of_attachments(r#"451-["x",{"_placeholder":true,"num":0}]"#),
            Ends,
        ),
        (
            "a text in the place of attachments without end",
            instead_of_attachments(r#"4518446744073709551615-["x"]"#),
            Ends,
        ),
        (
            "two attachments that nobody asked for",
            vec![
                Message::text(r#"452-["x",{"_placeholder":true,"num":1}]"#),
                Message::binary(vec![1, 2, 3]),
                Message::binary(vec![]),
            ],
            PassedOver,
        ),
        ("attachments by the hundred", text(r#"45100-["x"]"#), Ends),
        (
            "attachments of more than 256 KiB",
            iter::once(Message::text(r#"459-["x",{"_placeholder":true,"num":0}]"#))
                .chain(iter::repeat_n(Message::binary(vec![0; 60_000]), 5))
                .collect(),
            Ends,
        ),
        ("attachments of no number", text(r#"45x-["x"]"#), Ends),
        (
            "a text in the place of an attachment to nothing",
            instead_of_attachments(r#"451-["x",{"_placeholder":true,"num":99}]"#),
            Ends,
        ),
        ("a frame of 1 MB", vec![Message::binary(vec![0; 1_000_000])], Ends),
        ("continuation frames without end", frames(endless), Ends),
        ("a continuation of nothing", frames([data(Data::Continue, true, *b"x")]), Ends),
        (
            "a message within a message",
            frames([data(Data::Text, false, *b"4"), data(Data::Text, true, *b"2")]),
            Ends,
        ),
        ("a text that is not UTF-8", frames([data(Data::Text, true, *b"42[\"\xff\"]")]), Ends),
        ("a frame of a reserved kind", frames([data(Data::Reserved(3), true, *b"")]), Ends),
        ("a reserved bit", frames([reserved]), Ends),
        ("a control frame in pieces", frames([control(Control::Ping, false, vec![])]), Ends),
        ("a control frame of 1 kB", frames([control(Control::Ping, true, vec![0; 1_000])]), Ends),
        ("a thousand websocket pings", vec![Message::Ping(vec![0; 100].into()); 1_000], PassedOver),
        ("a close of one byte", frames([control(Control::Close, true, vec![3])]), Ends),
    ] {
        let mut socket =
            RawSocket::signed_in(scene.url(), &json!({ "token": attacker.token() })).await;
        for message in sent {
            socket.send_message(message).await;
        }
        // Told only if the test fails: which one it was.
        println!("{attack}");
        comes_to(&mut socket, expected, &scene.secret).await;
    }
    // A bad token at the second namespace does not touch the first one.
    let mut socket = RawSocket::signed_in(scene.url(), &json!({ "token": attacker.token() })).await;
    socket.send(r#"40/notifications,{"token":"bad"}"#).await;
    let refusal = r#"44/notifications,{"message":"token_invalid"}"#;
    assert_eq!(socket.frame().await.as_deref(), Some(refusal));
    comes_to(&mut socket, PassedOver, &scene.secret).await;
    // Before anybody has signed in, nothing but signing in is listened to.
    for (attack, sent) in [
        ("an event", r#"42["notification:list"]"#),
        ("an event in a namespace", r#"42/notifications,["notification:list"]"#),
        ("an ack", "431[]"),
        ("a disconnect", "41"),
        ("an attachment", r#"451-["x",{"_placeholder":true,"num":0}]"#),
        ("an unknown namespace", "40/admin,{}"),
        ("a sign-in that is no JSON", "40{"),
        ("a sign-in to a namespace without end", "40/notifications"),
    ] {
        let mut socket = RawSocket::open(scene.url()).await;
        socket.send(sent).await;
        while let Some(told) = socket.frame().await {
            assert!(told.starts_with("44") || told == "1", "{attack}: {told}");
        }
    }
    scene.stands_unharmed().await;
}

async fn events_about_somebody_else(setup: Setup) {
    let scene = Scene::shared(setup).await;
    let attacker = scene.attacker();
    let (victim, secret) = (scene.victim.id(), scene.secret.as_str());
    let mut socket = RawSocket::signed_in(scene.url(), &json!({ "token": attacker.token() })).await;
    let invalid = "payload_invalid";
    for (number, (event, payload, code)) in (1..).zip([
        ("notification:delete", json!({ "id": secret }), "not_found"),
        ("notification:delete", json!({ "id": secret, "userId": victim }), "not_found"),
        ("notification:delete", json!({ "ids": [secret, secret] }), invalid),
        ("notification:delete", json!({ "id": { "$ne": null } }), invalid),
        ("notification:delete", json!({ "id": "*" }), "not_found"),
        ("notification:delete", json!({ "id": "%" }), "not_found"),
        ("notification:delete", json!({ "id": "x' OR '1'='1" }), invalid),
        ("notification:delete", json!({ "id": "x'OR'1'='1" }), "not_found"),
        ("notification:delete", json!({ "id": "x".repeat(10_000) }), invalid),
        ("notification:mark_read", json!({ "ids": vec![secret; 1_001] }), invalid),
        ("notification:mark_read", json!({ "id": "a\0b" }), invalid),
        ("notification:mark_read", json!([[secret]]), invalid),
        ("notification:list", json!({ "cursor": "AQAAAAAAAAAB", "limit": -1 }), invalid),
        ("notification:list", json!({ "cursor": "'; --" }), invalid),
        ("notification:list", json!({ "type": "a b" }), invalid),
        ("notification:list", json!({ "unread": "true" }), invalid),
        ("auth:refresh", json!({ "token": scene.victim.token() }), "token_of_other_user"),
        ("auth:refresh", json!({ "token": [scene.victim.token()] }), "token_missing"),
        ("join", json!(format!("user:{victim}")), "event_unknown"),
        ("subscribe", json!({ "room": format!("user:{victim}") }), "event_unknown"),
        ("notification:create", json!({ "userId": victim, "title": "Hi" }), "event_unknown"),
        ("__proto__", json!({ "id": secret }), "event_unknown"),
        ("", json!({ "id": secret }), "event_unknown"),
    ]) {
        socket.send(&format!("42{number}{}", json!([event, payload]))).await;
        let told = socket.frame().await.unwrap();
        let told: Value = serde_json::from_str(told.trim_start_matches(char::is_numeric)).unwrap();
        assert_eq!(told[0]["code"], code, "{event} {payload:.200}: {told:.300}");
    }
    // What concerns nobody but the attacker is done, in the attacker's own inbox.
    for (event, payload) in [
        ("notification:mark_read", json!({ "id": secret })),
        ("notification:mark_read", json!({ "ids": [secret], "userId": victim })),
        ("notification:mark_all_read", json!({ "userId": victim })),
        ("notification:list", json!({ "userId": victim, "user": victim })),
        ("notification:unread_count", json!({ "userId": victim })),
        ("notification:sync", json!({ "since": 0, "epoch": null, "userId": victim })),
    ] {
        socket.send(&format!("4299{}", json!([event, payload]))).await;
        loop {
            let told = socket.frame().await.unwrap();
            assert!(!told.contains(secret), "{event}: {told}");
            if told.starts_with("4399") {
                assert!(told.contains(r#""status":"ok""#), "{event}: {told}");
                break;
            }
        }
    }
    scene.stands_unharmed().await;
}

/// Polling, by hand.
pub(super) struct Poller {
    http: Http,
    path: String,
}

impl Poller {
    pub(super) async fn open(url: &str) -> (Self, String) {
        let http = Http::new(url);
        let path = "/socket.io/?EIO=4&transport=polling".to_owned();
        let opened = http.get(&path).await;
        let open: Value = serde_json::from_str(&opened.text[1..]).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        (Self { http, path: format!("{path}&sid={sid}") }, sid)
    }

    pub(super) async fn signed_in(url: &str, token: &str) -> (Self, String) {
        let (poller, sid) = Self::open(url).await;
        poller.says(format!("40{}", json!({ "token": token }))).await;
        let mut heard = String::new();
        while !heard.contains("notification:sync") {
            heard += &poller.hears().await.text;
        }
        (poller, sid)
    }

    pub(super) async fn says(&self, packet: impl Into<reqwest::Body>) -> Answer {
        send(self.http.request(Method::POST, &self.path).body(packet)).await
    }

    pub(super) async fn hears(&self) -> Answer {
        self.http.get(&self.path).await
    }
}

async fn polling_sessions_of_somebody_else(setup: Setup) {
    let scene = Scene::shared(setup).await;
    let attacker = scene.attacker();
    let url = scene.url();
    // A session that does not exist, or cannot.
    for sid in ["AAAAAAAAAAAAAAAA", "x", "", "%00", "..%2f..", "a&sid=b", &"s".repeat(5_000)] {
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        for method in [Method::GET, Method::POST] {
            let answer = send(Http::new(url).request(method, &path).body("1")).await;
            assert!((400..500).contains(&answer.status), "{sid:.20}: {answer:?}");
        }
        let refused = RawSocket::upgrade(url, &format!("&sid={sid}")).await;
        if let Some(mut socket) = refused {
            socket.send("2probe").await;
            assert_eq!(socket.frame().await, None, "{sid:.20}");
        }
    }
    for (attack, query) in [
        ("another version", "EIO=3&transport=polling"),
        ("no version", "transport=polling"),
        ("no transport", "EIO=4"),
        ("an unknown transport", "EIO=4&transport=flashsocket"),
    ] {
        let answer = Http::new(url).get(&format!("/socket.io/?{query}")).await;
        assert_eq!(answer.status, 400, "{attack}: {answer:?}");
    }

    // The attacker's own session, and what it does to that.
    let mut surprises = Vec::new();
    for (attack, packet, status) in [
        ("no packet", String::new(), 400),
        ("a packet of no kind", "x".to_owned(), 400),
        ("nothing but separators", "\u{1e}".repeat(100), 400),
        ("a body over the limit", format!("4{}", "x".repeat(300_000)), 413),
        ("a base64 attachment that is none", "b!!!!".to_owned(), 400),
    ] {
        let (poller, _) = Poller::signed_in(url, &attacker.token()).await;
        let answer = poller.says(packet).await;
        if answer.status != status {
            surprises.push(format!("{attack}: {answer:?}"));
        }
    }
    assert_eq!(surprises, Vec::<String>::new());
    let (poller, sid) = Poller::signed_in(url, &attacker.token()).await;
    let head = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunk = format!("ffff\r\n{}\r\n", "x".repeat(0xffff));
    let told = exchange(url, format!("{head}{}0\r\n\r\n", chunk.repeat(32))).await;
    assert_eq!(statuses(&told), [413], "chunks over the limit: {told}");
    drop(poller);

    // Two polls at once end the session, as the protocol has it; no third one hears anything.
    let (poller, _) = Poller::signed_in(url, &attacker.token()).await;
    let (one, other) = tokio::join!(poller.hears(), poller.hears());
    assert!([one.status, other.status].contains(&400), "{one:?} {other:?}");

    // Who knows a session's id may well end it or take it over, as the protocol has it: it is its only
    // secret. It is as long as one: what may not happen is that it opens anything more.
    let (_, sid) = Poller::signed_in(url, &attacker.token()).await;
    assert!(sid.len() >= 16, "{sid}");
    let query = format!("&sid={sid}");
    let (one, other) =
        tokio::join!(RawSocket::upgrade(url, &query), RawSocket::upgrade(url, &query));
    for mut socket in [one, other].into_iter().flatten() {
        socket.send("5").await;
        while let Some(told) = socket.frame().await {
            assert!(!told.contains(&scene.secret), "{told}");
        }
    }
    scene.stands_unharmed().await;
}
