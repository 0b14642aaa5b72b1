//! Engine.IO and Socket.IO packets that no client library sends: out of order, oversized or malformed, on
//! the attacker's own connection and on sessions of other users.

use std::iter;

use belfry_tests::http::{Http, send};
use belfry_tests::raw_http::{exchange, statuses};
use belfry_tests::raw_socket::RawSocket;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::Target;
use super::polling_client::PollingClient;
use crate::setup::Setup;

on_both_setups!(
    invalid_packets_are_rejected_or_ignored,
    events_of_an_attacker_do_not_affect_other_users,
    invalid_polling_requests_are_rejected
);

/// The effect of a packet on the attacker's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The server closes the connection.
    Closed,
    /// The server ignores the packet, and the connection continues.
    Ignored,
}
use Outcome::{Closed, Ignored};

/// Checks whether the connection continues. A session that continues must answer a request, without the
/// victim's notifications. A session that ends may still answer earlier packets, so no request is sent on it.
async fn assert_outcome(socket: &mut RawSocket, expected: Outcome, secret: &str) {
    if expected == Ignored {
        // An event with the ack id 977, which no attempt uses.
        socket.send(r#"42977["notification:list"]"#).await;
    }
    while let Some(frame) = socket.frame().await {
        assert!(!frame.contains(secret), "{frame}");
        if frame.starts_with("43977[") {
            assert!(frame.contains(r#""status":"ok""#), "{frame}");
            return;
        }
    }
    assert_eq!(expected, Closed, "the server has closed the connection");
}

fn text(text: impl Into<String>) -> Vec<Message> {
    vec![Message::text(text.into())]
}

fn text_instead_of_attachments(announcement: &str) -> Vec<Message> {
    vec![Message::text(announcement), Message::text(r#"42["notification:list"]"#)]
}

fn frames(frames: impl IntoIterator<Item = Frame>) -> Vec<Message> {
    frames.into_iter().map(Message::Frame).collect()
}

fn data(code: Data, is_final: bool, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::message(payload.into(), OpCode::Data(code), is_final)
}

fn control(code: Control, is_final: bool, payload: Vec<u8>) -> Frame {
    let opcode = OpCode::Control(code);
    let header = FrameHeader { is_final, opcode, ..FrameHeader::default() };
    Frame::from_payload(header, payload.into())
}

async fn invalid_packets_are_rejected_or_ignored(setup: Setup) {
    // Some attackers are disconnected only at the sign-in deadline.
    let deployment =
        setup.own_with(|builder| builder.setting("socket.connect_timeout", "3s")).await;
    let target = Target::on(deployment.into()).await;
    let attacker = target.attacker();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut with_reserved_bit = Frame::ping(vec![]);
    with_reserved_bit.header_mut().rsv1 = true;
    let mut endless = vec![data(Data::Text, false, *b"42[\"")];
    endless.extend((0..300).map(|_| data(Data::Continue, false, vec![b'x'; 1_000])));
    for (attempt, messages, expected) in [
        ("an unknown Engine.IO packet", text("9"), Closed),
        ("a packet that begins with a letter", text("x"), Closed),
        ("an empty packet", text(""), Closed),
        ("an Engine.IO open packet", text("0{}"), Closed),
        ("an upgrade on a WebSocket", text("5"), Closed),
        ("a probe on a WebSocket", text("2probe"), Closed),
        ("a ping, which only the server may send", text("2"), Ignored),
        ("a pong without a ping", text("3"), Ignored),
        ("a thousand pongs", vec![Message::text("3"); 1_000], Ignored),
        ("an Engine.IO noop", text("6"), Closed),
        ("an Engine.IO close", text("1"), Closed),
        ("an unknown Socket.IO packet", text("49"), Closed),
        ("an empty Socket.IO packet", text("4"), Closed),
        (
            "a connect error, which only the server may send",
            text(r#"44{"message":"token_invalid"}"#),
            Closed,
        ),
        ("a second sign-in", text(format!("40{}", json!({ "token": attacker.token() }))), Ignored),
        ("a second sign-in with a bad token", text(r#"40{"token":"bad"}"#), Closed),
        ("an unknown namespace", text("40/admin,"), Ignored),
        ("a namespace that is a path", text("40/../../etc/passwd,"), Ignored),
        ("a namespace of 50 kB", text(format!("40/{},", "n".repeat(50_000))), Ignored),
        (
            "an event in a namespace that is not connected",
            text(r#"42/notifications,["notification:list"]"#),
            Ignored,
        ),
        ("an event in an unknown namespace", text(r#"42/admin,["notification:list"]"#), Ignored),
        ("an ack without an event", text("431[]"), Ignored),
        ("an ack with an id out of range", text("4399999999999999999999999[]"), Closed),
        (
            "an event with an id out of range",
            text(r#"4299999999999999999999999["notification:list"]"#),
            Ignored,
        ),
        (
            "acks for all ids",
            (0..1_000).map(|id| Message::text(format!("43{id}[]"))).collect(),
            Ignored,
        ),
        ("an event that is not JSON", text("42["), Closed),
        ("an event that is an object", text("42{}"), Closed),
        ("an event without a name", text("42[]"), Closed),
        ("an event whose name is a number", text("42[7]"), Closed),
        ("an event whose name is an object", text(r#"42[{"a":1}]"#), Closed),
        ("an event called disconnect", text(r#"42["disconnect"]"#), Ignored),
        ("an event called connect", text(r#"42["connect",{}]"#), Ignored),
        (
            "an event that only the server sends",
            text(r#"42["notification:new",{"id":"x"}]"#),
            Ignored,
        ),
        ("an event nested 40,000 deep", text(format!(r#"42["x",{}]"#, nested(40_000))), Ignored),
        ("an event nested 100 deep", text(format!(r#"42["x",{}]"#, nested(100))), Ignored),
        ("an event of 99 kB", text(format!(r#"42["x","{}"]"#, "y".repeat(99_000))), Ignored),
        ("an event of 300 kB", text(format!(r#"42["x","{}"]"#, "y".repeat(300_000))), Closed),
        ("an unpaired surrogate", text(r#"42["x","\ud800"]"#), Ignored),
        ("an attachment without an announcement", vec![Message::binary(vec![1, 2, 3])], Closed),
        (
            "a text instead of an attachment",
            text_instead_of_attachments(r#"451-["x",{"_placeholder":true,"num":0}]"#),
            Closed,
        ),
        (
            "a text instead of 2^64 - 1 attachments",
            text_instead_of_attachments(r#"4518446744073709551615-["x"]"#),
            Closed,
        ),
        (
            "more attachments than placeholders",
            vec![
                Message::text(r#"452-["x",{"_placeholder":true,"num":1}]"#),
                Message::binary(vec![1, 2, 3]),
                Message::binary(vec![]),
            ],
            Ignored,
        ),
        ("a hundred attachments", text(r#"45100-["x"]"#), Closed),
        (
            "attachments of more than 256 KiB",
            iter::once(Message::text(r#"459-["x",{"_placeholder":true,"num":0}]"#))
                .chain(iter::repeat_n(Message::binary(vec![0; 60_000]), 5))
                .collect(),
            Closed,
        ),
        ("an attachment count that is not a number", text(r#"45x-["x"]"#), Closed),
        (
            "a text instead of an attachment, with a placeholder out of range",
            text_instead_of_attachments(r#"451-["x",{"_placeholder":true,"num":99}]"#),
            Closed,
        ),
        ("a frame of 1 MB", vec![Message::binary(vec![0; 1_000_000])], Closed),
        ("endless continuation frames", frames(endless), Closed),
        (
            "a continuation frame without a first frame",
            frames([data(Data::Continue, true, *b"x")]),
            Closed,
        ),
        (
            "a text frame within a fragmented message",
            frames([data(Data::Text, false, *b"4"), data(Data::Text, true, *b"2")]),
            Closed,
        ),
        ("a text that is not UTF-8", frames([data(Data::Text, true, *b"42[\"\xff\"]")]), Closed),
        ("a frame with a reserved opcode", frames([data(Data::Reserved(3), true, *b"")]), Closed),
        ("a reserved bit", frames([with_reserved_bit]), Closed),
        ("a fragmented control frame", frames([control(Control::Ping, false, vec![])]), Closed),
        ("a control frame of 1 kB", frames([control(Control::Ping, true, vec![0; 1_000])]), Closed),
        ("a thousand WebSocket pings", vec![Message::Ping(vec![0; 100].into()); 1_000], Ignored),
        ("a close frame of one byte", frames([control(Control::Close, true, vec![3])]), Closed),
    ] {
        let mut socket =
            RawSocket::signed_in(target.url(), &json!({ "token": attacker.token() })).await;
        for message in messages {
            socket.send_message(message).await;
        }
        // The output of a test is shown only if it fails.
        println!("{attempt}");
        assert_outcome(&mut socket, expected, &target.secret).await;
    }
    // A bad token for the second namespace does not affect the first one.
    let mut socket =
        RawSocket::signed_in(target.url(), &json!({ "token": attacker.token() })).await;
    socket.send(r#"40/notifications,{"token":"bad"}"#).await;
    let connect_error = r#"44/notifications,{"message":"token_invalid"}"#;
    assert_eq!(socket.frame().await.as_deref(), Some(connect_error));
    assert_outcome(&mut socket, Ignored, &target.secret).await;
    // Before sign-in, only a sign-in is processed.
    for (attempt, packet) in [
        ("an event", r#"42["notification:list"]"#),
        ("an event in a namespace", r#"42/notifications,["notification:list"]"#),
        ("an ack", "431[]"),
        ("a disconnect", "41"),
        ("an attachment", r#"451-["x",{"_placeholder":true,"num":0}]"#),
        ("an unknown namespace", "40/admin,{}"),
        ("a sign-in that is not JSON", "40{"),
        ("a sign-in without a comma after the namespace", "40/notifications"),
    ] {
        let mut socket = RawSocket::open(target.url()).await;
        socket.send(packet).await;
        // Only a connect error (44) or an Engine.IO CLOSE (1) may come before the end.
        while let Some(frame) = socket.frame().await {
            assert!(frame.starts_with("44") || frame == "1", "{attempt}: {frame}");
        }
    }
    target.assert_unharmed().await;
}

async fn events_of_an_attacker_do_not_affect_other_users(setup: Setup) {
    let target = Target::shared(setup).await;
    let attacker = target.attacker();
    let (victim, secret) = (target.victim.id(), target.secret.as_str());
    let mut socket =
        RawSocket::signed_in(target.url(), &json!({ "token": attacker.token() })).await;
    let invalid = "payload_invalid";
    for (number, (event, payload, code)) in (1..).zip([
        ("notification:delete", json!({ "id": secret }), "not_found"),
        ("notification:delete", json!({ "id": secret, "userId": victim }), invalid),
        ("notification:mark_read", json!({ "ids": [secret], "userId": victim }), invalid),
        ("notification:mark_all_read", json!({ "userId": victim }), invalid),
        ("notification:list", json!({ "userId": victim, "user": victim }), invalid),
        ("notification:unread_count", json!({ "userId": victim }), invalid),
        ("notification:sync", json!({ "since": 0, "epoch": null, "userId": victim }), invalid),
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
        ("auth:refresh", json!({ "token": target.victim.token() }), "token_of_other_user"),
        ("auth:refresh", json!({ "token": [target.victim.token()] }), "token_missing"),
        ("join", json!(format!("user:{victim}")), "event_unknown"),
        ("subscribe", json!({ "room": format!("user:{victim}") }), "event_unknown"),
        ("notification:create", json!({ "userId": victim, "title": "Hi" }), "event_unknown"),
        ("__proto__", json!({ "id": secret }), "event_unknown"),
        ("", json!({ "id": secret }), "event_unknown"),
    ]) {
        // The number is the ack id.
        socket.send(&format!("42{number}{}", json!([event, payload]))).await;
        let ack = socket.frame().await.unwrap();
        let ack: Value = serde_json::from_str(ack.trim_start_matches(char::is_numeric)).unwrap();
        assert_eq!(ack[0]["code"], code, "{event} {payload:.200}: {ack:.300}");
    }
    // These events succeed, but only on the attacker's own inbox.
    for (event, payload) in [
        ("notification:mark_read", json!({ "id": secret })),
        ("notification:mark_read", json!({ "ids": [secret], "userId": attacker.id() })),
        ("notification:mark_all_read", json!({})),
        ("notification:list", json!({})),
        ("notification:unread_count", json!({})),
        ("notification:sync", json!({ "since": 0, "epoch": null })),
    ] {
        socket.send(&format!("4299{}", json!([event, payload]))).await;
        loop {
            let frame = socket.frame().await.unwrap();
            assert!(!frame.contains(secret), "{event}: {frame}");
            if frame.starts_with("4399") {
                assert!(frame.contains(r#""status":"ok""#), "{event}: {frame}");
                break;
            }
        }
    }
    target.assert_unharmed().await;
}

async fn invalid_polling_requests_are_rejected(setup: Setup) {
    let target = Target::shared(setup).await;
    let attacker = target.attacker();
    let url = target.url();
    // Ids of sessions that do not exist, and ids that are invalid.
    for sid in ["AAAAAAAAAAAAAAAA", "x", "", "%00", "..%2f..", "a&sid=b", &"s".repeat(5_000)] {
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        for method in [Method::GET, Method::POST] {
            let answer = send(Http::new(url).request(method, &path).body("1")).await;
            assert!((400..500).contains(&answer.status), "{sid:.20}: {answer:?}");
        }
        let upgraded = RawSocket::upgrade(url, &format!("&sid={sid}")).await;
        if let Some(mut socket) = upgraded {
            socket.send("2probe").await;
            assert_eq!(socket.frame().await, None, "{sid:.20}");
        }
    }
    for (attempt, query) in [
        ("another version", "EIO=3&transport=polling"),
        ("no version", "transport=polling"),
        ("no transport", "EIO=4"),
        ("an unknown transport", "EIO=4&transport=flashsocket"),
    ] {
        let answer = Http::new(url).get(&format!("/socket.io/?{query}")).await;
        assert_eq!(answer.status, 400, "{attempt}: {answer:?}");
    }

    // Invalid packets on the attacker's own session.
    let mut failures = Vec::new();
    for (attempt, packet, status) in [
        ("no packet", String::new(), 400),
        ("a packet of an unknown type", "x".to_owned(), 400),
        ("only separators", "\u{1e}".repeat(100), 400),
        ("a body over the limit", format!("4{}", "x".repeat(300_000)), 413),
        ("an attachment that is not base64", "b!!!!".to_owned(), 400),
    ] {
        let (client, _) = PollingClient::signed_in(url, &attacker.token()).await;
        let answer = client.send(packet).await;
        if answer.status != status {
            failures.push(format!("{attempt}: {answer:?}"));
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    let (client, sid) = PollingClient::signed_in(url, &attacker.token()).await;
    let head = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunk = format!("ffff\r\n{}\r\n", "x".repeat(0xffff));
    let answer = exchange(url, format!("{head}{}0\r\n\r\n", chunk.repeat(32))).await;
    assert_eq!(statuses(&answer), [413], "chunks over the limit: {answer}");
    drop(client);

    // Two concurrent polls end the session, as the protocol requires.
    let (client, _) = PollingClient::signed_in(url, &attacker.token()).await;
    let (first, second) = tokio::join!(client.poll(), client.poll());
    assert!([first.status, second.status].contains(&400), "{first:?} {second:?}");

    // The protocol has no other secret than the session id: a client that knows it can end the session or
    // take it over. So it must be long, and it must not give access to anything else.
    let (_, sid) = PollingClient::signed_in(url, &attacker.token()).await;
    assert!(sid.len() >= 16, "{sid}");
    let query = format!("&sid={sid}");
    let (first, second) =
        tokio::join!(RawSocket::upgrade(url, &query), RawSocket::upgrade(url, &query));
    for mut socket in [first, second].into_iter().flatten() {
        // Engine.IO UPGRADE, without the probe that must precede it.
        socket.send("5").await;
        while let Some(frame) = socket.frame().await {
            assert!(!frame.contains(&target.secret), "{frame}");
        }
    }
    target.assert_unharmed().await;
}
