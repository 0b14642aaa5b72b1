//! Forward mode: another service, the inbox owner, keeps the inboxes. Belfry passes changes on to it.

use std::sync::Arc;

use belfry_adapters::inbound::socketio::{SocketIoSettings, SocketUseCases};
use belfry_adapters::wire::socket::{SocketNames, SocketTable};
use belfry_application::ports::{InboxOwner, PortError, RequestedChange};
use belfry_application::testing::{
    InMemoryStore, ManualClock, MockInboxOwner, RecordingInboxOwner, epoch, id, user,
};
use belfry_application::use_cases::{CatchUp, RequestChange};
use serde_json::{Value, json};

use super::{Node, RawSocket, node_of};

async fn forwarding_node(owner: Arc<dyn InboxOwner>) -> Node {
    let names = SocketNames {
        presets: vec!["nestjs-default".parse().unwrap()],
        messages: [
            vec!["read as bare".parse().unwrap(), "markAsRead as success".parse().unwrap()],
            vec!["readAll as number".parse().unwrap()],
            Vec::new(),
            Vec::new(),
            Vec::new(),
        ],
        ..SocketNames::default()
    };
    let names = Arc::new(SocketTable::new(&names).unwrap());
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let catch_up = CatchUp::for_forward_mode(store.clone());
    let use_cases = SocketUseCases::Forward(Some(RequestChange::new(owner)));
    let settings = SocketIoSettings { names, ..SocketIoSettings::default() };
    node_of(settings, store, Arc::new(ManualClock::at(0)), catch_up, use_cases).await
}

/// Connects and receives `notification:sync`. In forward mode, no unread count follows.
async fn signed_in(node: &Node) -> RawSocket {
    let mut raw = RawSocket::open(node).await;
    raw.send(&format!("40{}", json!({ "token": "ada:9999999", "since": 7, "epoch": "e1" }))).await;
    assert!(raw.frame().await.unwrap().starts_with("40{"));
    let expected = json!({ "epoch": "e1", "revision": 0, "recovered": false, "missed": 0 });
    assert_eq!(raw.event().await, ("notification:sync".to_owned(), expected));
    raw
}

#[tokio::test]
async fn change_is_passed_on_and_acknowledged_in_the_form_configured_for_its_name() {
    let owner = Arc::new(RecordingInboxOwner::default());
    let node = forwarding_node(owner.clone()).await;
    let mut ada = signed_in(&node).await;
    let ok = json!({ "status": "ok", "data": {} });
    let mut expected = Vec::new();
    for (n, (message, payload, ack, change)) in (1..).zip([
        (
            "notification:mark_read",
            json!("n1"),
            ok.clone(),
            RequestedChange::MarkRead(vec![id("n1")]),
        ),
        (
            "markAsRead",
            json!({ "notificationId": 7 }),
            json!({ "success": true }),
            RequestedChange::MarkRead(vec![id("7")]),
        ),
        (
            "read",
            json!({ "ids": ["n1", "n2"] }),
            json!({}),
            RequestedChange::MarkRead(vec![id("n1"), id("n2")]),
        ),
        ("readAll", json!(null), json!({}), RequestedChange::MarkAllRead),
        ("notification:delete", json!({ "id": "n1" }), ok, RequestedChange::Delete(id("n1"))),
    ]) {
        // An event (`42`) that requests the acknowledgement `n`.
        ada.send(&format!("42{n}{}", json!([message, payload]))).await;
        assert_eq!(ada.ack(n).await, ack, "{message}");
        expected.push((user("ada"), change));
    }
    assert_eq!(owner.requests(), expected);
}

#[tokio::test]
async fn refusal_and_outage_have_codes_of_their_own() {
    let mut owner = MockInboxOwner::new();
    owner.expect_request().returning(|_, _| Err(PortError::unavailable("down")));
    let node = forwarding_node(Arc::new(owner)).await;
    let mut ada = signed_in(&node).await;
    for (n, (message, code)) in (1..).zip([
        (json!(["notification:list", { "limit": 1000 }]), "inbox_not_kept"),
        (json!(["notification:unread_count"]), "inbox_not_kept"),
        (json!(["notification:mark_read", { "x": 1 }]), "payload_invalid"),
        (json!(["notification:mark_read", { "id": "n1" }]), "unavailable"),
    ]) {
        ada.send(&format!("42{n}{message}")).await;
        let reply = ada.ack(n).await;
        assert_eq!((&reply["status"], &reply["code"]), (&json!("error"), &Value::from(code)));
    }
    // With an acknowledgement in the form of NestJS, a failure is an event.
    ada.send(r#"429["read","n1"]"#).await;
    let (event, payload) = ada.event().await;
    assert_eq!((&*event, &payload["code"]), ("exception", &json!("unavailable")));
}
