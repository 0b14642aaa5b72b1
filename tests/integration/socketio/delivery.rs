//! Events reach the devices of their user: missed ones first, then live ones.

use belfry_adapters::inbound::socketio::SocketIoSettings;
use belfry_adapters::inbound::socketio::engine::EngineSettings;
use belfry_application::ports::InboxRepository;
use belfry_application::testing::a_draft;
use serde_json::json;

use super::{RawSocket, node, node_with};

#[tokio::test]
async fn device_receives_the_sync_and_then_only_events_of_its_user() {
    let node = node().await;
    let (mut ada, sync) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    assert_eq!(
        sync,
        json!({ "epoch": "e1", "revision": 0, "unreadCount": 0, "recovered": false, "missed": 0 })
    );
    let (mut bob, _) = RawSocket::signed_in(&node, json!({ "token": "Bearer bob:9999999" })).await;

    node.notify("ada", "n1").await;
    node.notify("bob", "n2").await;

    let (event, new) = ada.event().await;
    assert_eq!((event.as_str(), &new["id"]), ("notification:new", &json!("n1")));
    let (event, count) = ada.event().await;
    assert_eq!(event, "notification:unread_count");
    assert_eq!(count, json!({ "count": 1, "revision": 1 }));
    let (_, new) = bob.event().await;
    assert_eq!(new["id"], "n2");
}

#[tokio::test]
async fn device_receives_missed_events_before_live_ones() {
    let node = node().await;
    for n in 0..300 {
        node.notify("ada", &format!("n{n}")).await;
    }
    let auth = json!({ "token": "ada:9999999", "since": 100, "epoch": "e1" });
    let (mut ada, sync) = RawSocket::signed_in(&node, auth).await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(200)));
    node.notify("ada", "live").await;
    let mut ids = Vec::new();
    while ids.last().is_none_or(|id| id != "live") {
        let (event, payload) = ada.event().await;
        if event == "notification:new" {
            ids.push(payload["id"].as_str().unwrap().to_owned());
        }
    }
    let expected: Vec<_> = (100..300).map(|n| format!("n{n}")).chain(["live".to_owned()]).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn sync_message_replays_missed_events() {
    let node = node().await;
    let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    node.store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    // An event (`42`) that requests the acknowledgement 1.
    ada.send(&format!("421{}", json!(["notification:sync", { "since": 0, "epoch": "e1" }]))).await;
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(ada.event().await.0);
    }
    assert_eq!(events, ["notification:sync", "notification:new", "notification:unread_count"]);
    assert_eq!(ada.ack(1).await["data"]["missed"], 1);
}

#[tokio::test]
async fn slow_consumer_is_disconnected_and_other_devices_receive_everything() {
    let engine = EngineSettings { queue: 16, ..EngineSettings::default() };
    let node = node_with(SocketIoSettings { engine, ..SocketIoSettings::default() }).await;
    let (mut reading, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    let (stuck, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    assert_eq!(node.sessions.count(), 2);
    let mut n = 0;
    while node.sessions.count() > 1 {
        assert!(n < 100_000, "the slow consumer is not disconnected");
        // Each notification is followed by the unread count, so four of them are eight events.
        for _ in 0..4 {
            node.notify("ada", &format!("n{n}")).await;
            n += 1;
        }
        for _ in 0..8 {
            reading.event().await;
        }
    }
    println!("disconnected after {n} notifications");
    drop(stuck);
}
