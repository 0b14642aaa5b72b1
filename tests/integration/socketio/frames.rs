//! WebSocket frames and the limits on them. A text such as `421["notification:unread_count"]` is an event
//! (`42`) that requests the acknowledgement 1; `431[…]` is the acknowledgement.

use std::time::{Duration, Instant};

use belfry_tests::wait::until_true;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{RawSocket, node, padded};

#[tokio::test]
async fn rate_of_frames_other_than_events_is_limited() {
    let node = node().await;
    let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    let begin = Instant::now();
    for n in 0..1_000 {
        let frame = if n % 2 == 0 { Message::text("3") } else { Message::Pong(vec![].into()) };
        ada.0.feed(frame).await.unwrap();
    }
    ada.send(r#"421["notification:unread_count"]"#).await;
    assert_eq!(ada.ack(1).await["status"], "ok");
    // 200 a second, with a burst of 400.
    assert!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn client_outside_of_all_namespaces_may_send_only_small_messages() {
    const MAX_BYTES: usize = 32 * 1024;
    let node = node().await;
    let connect = |bytes| padded(r#"40{"token":"ada:9999999","x":""#, r#""}"#, bytes);
    let mut eve = RawSocket::open(&node).await;
    eve.send(&connect(MAX_BYTES + 1)).await;
    assert!(eve.is_closed().await);

    let mut ada = RawSocket::open(&node).await;
    ada.send(&connect(MAX_BYTES)).await;
    assert!(ada.frame().await.expect("the transport stays open").starts_with("40{"));
    for _ in 0..2 {
        assert!(ada.event().await.0.starts_with("notification:"));
    }
    // In a namespace the limit is `socket.max_payload`, 256 KiB.
    for id in 1..3 {
        let start = format!(r#"42{id}["unknown",""#);
        ada.send(&padded(&start, r#""]"#, 256 * 1024)).await;
        assert_eq!(ada.ack(id).await["code"], "event_unknown");
    }
    ada.send(&padded(r#"423["unknown",""#, r#""]"#, 256 * 1024 + 1)).await;
    assert!(ada.is_closed().await);
}

#[tokio::test]
async fn attachments_fragments_pings_and_close_frames_are_processed() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let node = node().await;
    let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    // A binary event with two attachments that requests the acknowledgement 1.
    ada.send(r#"452-1["notification:delete",{"_placeholder":true,"num":0}]"#).await;
    for attachment in [vec![1, 2], vec![]] {
        ada.0.send(Message::binary(attachment)).await.unwrap();
    }
    assert_eq!(ada.ack(1).await["code"], "payload_invalid");

    // An event in five fragments, with a WebSocket ping after each.
    let event = br#"422["notification:unread_count"]"#;
    for (index, part) in event.chunks(7).enumerate() {
        let opcode = OpCode::Data(if index == 0 { Data::Text } else { Data::Continue });
        let is_last = (index + 1) * 7 >= event.len();
        let frame = Frame::message(part.to_vec(), opcode, is_last);
        ada.0.send(Message::Frame(frame)).await.unwrap();
        ada.0.send(Message::Ping(vec![u8::try_from(index).unwrap()].into())).await.unwrap();
    }
    let (mut pongs, mut is_acknowledged) = (0, false);
    while pongs < 5 || !is_acknowledged {
        match ada.0.next().await.unwrap().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(payload[..], [pongs]);
                pongs += 1;
            }
            Message::Text(text) => is_acknowledged |= text.starts_with("432[{"),
            other => panic!("{other}"),
        }
    }
    // The server answers a close frame with the same status code.
    let status = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 4_000.into(),
        reason: "done".into(),
    };
    ada.0.close(Some(status)).await.unwrap();
    let closed = loop {
        match ada.0.next().await {
            Some(Ok(Message::Close(frame))) => break frame,
            Some(Ok(_)) => {}
            end => panic!("{end:?}"),
        }
    };
    assert_eq!(u16::from(closed.unwrap().code), 4_000);
    until_true("no session is left", async || node.sessions.count() == 0).await;
}
