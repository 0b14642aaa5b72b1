//! Transports and namespaces open and close. In packets, `40` connects to a namespace, `41` leaves it, and
//! `1` closes the transport; `42…` is an event, `43…` an acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use belfry_adapters::inbound::socketio::SocketIoSettings;
use belfry_adapters::inbound::socketio::engine::EngineSettings;
use belfry_tests::wait::until_true;
use futures_util::StreamExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{RawSocket, node, node_with};

#[tokio::test]
async fn device_that_leaves_is_removed_completely() {
    let node = node().await;
    // Each transport holds a reference to the sessions, so the count of references shows a leaked transport.
    let references = Arc::strong_count(&node.sessions);
    for packet in ["41", "1"] {
        let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
        assert_eq!(node.sessions.count(), 1);
        ada.send(packet).await;
        until_true("the session is gone", async || node.sessions.count() == 0).await;
    }
    let (ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    drop(ada);
    until_true("the session is gone", async || node.sessions.count() == 0).await;
    until_true("the transports are gone", async || Arc::strong_count(&node.sessions) == references)
        .await;
}

#[tokio::test]
async fn drain_closes_transports_without_a_disconnect_packet() {
    let node = node().await;
    let mut devices = Vec::new();
    for name in ["ada", "ada", "bob"] {
        let token = json!({ "token": format!("{name}:9999999") });
        devices.push(RawSocket::signed_in(&node, token).await.0);
    }
    node.sessions.drain(Duration::from_millis(50)).await;
    for device in &mut devices {
        // Client libraries would not reconnect after a Socket.IO disconnect.
        assert_eq!(device.frame().await, None);
    }
}

#[tokio::test]
async fn namespaces_of_a_device_are_independent() {
    let node = node().await;
    let auth = json!({ "token": "ada:9999999" });
    let (mut ada, _) = RawSocket::signed_in(&node, auth.clone()).await;
    ada.send(&format!("40/notifications,{auth}")).await;
    assert!(ada.frame().await.unwrap().starts_with("40/notifications,{\"sid\":"));
    assert!(ada.frame().await.unwrap().starts_with("42/notifications,[\"notification:sync\","));
    assert!(ada.frame().await.unwrap().contains("notification:unread_count"));
    assert_eq!(node.sessions.count(), 2);
    // A second connect to the same namespace replaces the first.
    ada.send(&format!("40{auth}")).await;
    assert!(ada.frame().await.unwrap().starts_with("40{\"sid\":"));
    assert!(ada.frame().await.unwrap().starts_with("42[\"notification:sync\","));
    assert!(ada.frame().await.unwrap().contains("notification:unread_count"));
    assert_eq!(node.sessions.count(), 2);
    node.notify("ada", "n1").await;
    let mut frames = Vec::new();
    for _ in 0..4 {
        frames.push(ada.frame().await.unwrap());
    }
    // Each namespace receives the notification and the unread count.
    let count = |prefix: &str| frames.iter().filter(|frame| frame.starts_with(prefix)).count();
    assert_eq!((count("42["), count("42/notifications,[")), (2, 2), "{frames:?}");

    ada.send("41").await;
    until_true("one session is left", async || node.sessions.count() == 1).await;
    ada.send("42/notifications,7[\"notification:unread_count\"]").await;
    let ack = ada.frame().await.unwrap();
    assert_eq!(ack, r#"43/notifications,7[{"data":{"count":1,"revision":1},"status":"ok"}]"#);
    ada.send(&format!("40{auth}")).await;
    // The device may connect to the namespace again.
    assert!(ada.frame().await.unwrap().starts_with("40{"));
    assert!(ada.frame().await.unwrap().starts_with("42[\"notification:sync\","));
    assert!(ada.frame().await.unwrap().contains("notification:unread_count"));
    // Messages to a namespace that the device has left are ignored.
    ada.send("41/notifications,").await;
    ada.send("42/notifications,1[\"notification:unread_count\"]").await;
    ada.send("422[\"notification:unread_count\"]").await;
    assert_eq!(ada.ack(2).await["status"], "ok");
    ada.send("41").await;
    until_true("no session is left", async || node.sessions.count() == 0).await;
}

#[tokio::test]
async fn transport_without_a_namespace_is_closed_after_the_connect_timeout() {
    let connect_timeout = Duration::from_millis(300);
    let node = node_with(SocketIoSettings { connect_timeout, ..SocketIoSettings::default() }).await;
    let mut silent = RawSocket::open(&node).await;
    let mut rejected = RawSocket::open(&node).await;
    rejected.send("40/nowhere,{}").await;
    let rejection = rejected.frame().await.unwrap();
    assert_eq!(rejection, r#"44/nowhere,{"message":"Invalid namespace"}"#);
    for raw in [&mut silent, &mut rejected] {
        assert_eq!(raw.frame().await.as_deref(), Some("1"));
        assert!(raw.is_closed().await);
    }
    let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    tokio::time::sleep(2 * connect_timeout).await;
    ada.send(r#"421["notification:unread_count"]"#).await;
    assert_eq!(ada.ack(1).await["status"], "ok");
}

#[tokio::test]
async fn transport_is_closed_if_a_ping_is_not_answered() {
    let engine = EngineSettings {
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_secs(1),
        ..EngineSettings::default()
    };
    let node = node_with(SocketIoSettings { engine, ..SocketIoSettings::default() }).await;
    let token = |name: &str| json!({ "token": format!("{name}:9999999") });
    let (mut ada, _) = RawSocket::signed_in(&node, token("ada")).await;
    let (mut dead, _) = RawSocket::signed_in(&node, token("bob")).await;
    let times_out = async {
        let mut pings = 0;
        // `RawSocket::frame` would answer the ping `2`.
        while let Some(Ok(Message::Text(text))) = dead.0.next().await {
            assert_eq!(text.as_str(), "2");
            pings += 1;
        }
        assert!(pings <= 1, "{pings}");
    };
    // Longer than the timeout of an unanswered ping.
    let stays_open = tokio::time::timeout(Duration::from_secs(3), ada.frame());
    let ((), frame) = tokio::join!(times_out, stays_open);
    assert!(frame.is_err(), "something other than pings: {frame:?}");
    assert_eq!(node.sessions.count(), 1);
}
