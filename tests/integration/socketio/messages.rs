//! Messages of devices and their acknowledgements. A packet such as `421["notification:unread_count"]` is an
//! event (`42`) that requests the acknowledgement 1; `431[…]` is the acknowledgement.

use belfry_application::ports::InboxRepository;
use belfry_application::testing::{a_draft, user};
use serde_json::{Value, json};

use super::{RawSocket, node};

#[tokio::test]
async fn message_right_after_the_connect_is_acknowledged() {
    let node = node().await;
    let mut raw = RawSocket::open(&node).await;
    raw.send(&format!("40{}", json!({ "token": "ada:9999999" }))).await;
    // The message is sent before `notification:sync` and the unread count arrive.
    let connected = raw.frame().await.unwrap();
    assert!(connected.starts_with("40"));
    raw.send(r#"421["notification:unread_count"]"#).await;
    let mut frames =
        [raw.frame().await.unwrap(), raw.frame().await.unwrap(), raw.frame().await.unwrap()];
    frames.sort();
    assert_eq!(frames[2], r#"431[{"data":{"count":0,"revision":0},"status":"ok"}]"#);
}

#[tokio::test]
async fn every_message_is_acknowledged_with_its_data() {
    let node = node().await;
    for id in ["n1", "n2", "n3"] {
        node.store.create(vec![a_draft("ada", id)]).await.unwrap();
    }
    let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    for (n, (event, payload, data)) in (1..).zip([
        ("notification:mark_read", json!({ "id": "n1" }), json!({ "count": 2, "revision": 4 })),
        (
            "notification:read",
            json!({ "notificationId": "n1" }),
            json!({ "count": 2, "revision": 4 }),
        ),
        ("markAsRead", json!("n2"), json!({ "count": 1, "revision": 5 })),
        ("notification:unread_count", json!(null), json!({ "count": 1, "revision": 5 })),
        ("notification:delete", json!({ "id": "n1" }), json!({ "count": 1, "revision": 6 })),
        ("notification:mark_all_read", json!({}), json!({ "count": 0, "revision": 7 })),
    ]) {
        ada.send(&format!("42{n}{}", json!([event, payload]))).await;
        assert_eq!(ada.ack(n).await, json!({ "status": "ok", "data": data }), "{event}");
    }
    ada.send(&format!("429{}", json!(["notification:list", { "limit": 1 }]))).await;
    let page = ada.ack(9).await["data"].clone();
    assert_eq!(page["items"][0]["id"], "n3");
    assert_eq!(page["items"][0]["isRead"], true);
    ada.send(&format!("4210{}", json!(["notification:list", { "cursor": page["nextCursor"] }])))
        .await;
    let second_page = ada.ack(10).await;
    assert_eq!(second_page["data"]["items"][0]["id"], "n2");
    assert_eq!(second_page["data"]["nextCursor"], Value::Null);
}

#[tokio::test]
async fn failed_message_is_answered_with_a_code() {
    let node = node().await;
    node.store.create(vec![a_draft("bob", "n1")]).await.unwrap();
    let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    for (n, (message, code)) in (1..).zip([
        (json!(["notification:delete", { "id": "n1" }]), "not_found"),
        (json!(["notification:delete", { "id": {} }]), "payload_invalid"),
        (json!(["notification:mark_read"]), "payload_invalid"),
        (json!(["notification:list", { "cursor": "x" }]), "payload_invalid"),
        (json!(["notification:nonsense", {}]), "event_unknown"),
        (json!(["auth:refresh", {}]), "token_missing"),
        (json!(["auth:refresh", { "token": "bob:9999999" }]), "token_of_other_user"),
    ]) {
        ada.send(&format!("42{n}{message}")).await;
        let reply = ada.ack(n).await;
        assert_eq!(
            (&reply["status"], &reply["code"]),
            (&json!("error"), &json!(code)),
            "{message}"
        );
    }
    // Without a request for an acknowledgement, the error is an event.
    ada.send(r#"42["notification:nonsense"]"#).await;
    let (event, payload) = ada.event().await;
    assert_eq!((event.as_str(), &payload["code"]), ("exception", &json!("event_unknown")));
    let state = node.store.state(&user("bob")).await.unwrap();
    assert_eq!(state.unread.get(), 1, "another user's inbox has changed");
}
