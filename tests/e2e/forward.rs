//! Forward mode: another service keeps the inboxes. Belfry forwards its events to devices, forwards the
//! changes that devices request to the service, and rejects all other requests for an inbox.

use belfry_tests::amqp::Amqp;
use belfry_tests::postgres::fresh_database;
use belfry_tests::process::Builder;
use belfry_tests::rabbit::RabbitServer;
use belfry_tests::wait::until_true;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use serde_json::{Value, json};

use crate::setup::{Backends, Setup, User, ready, signed_in_without_count};

fn forwarding(builder: Builder) -> Builder {
    builder.setting("amqp.ingest.mode", "forward")
}

/// The messages of devices that change the inbox.
fn changes() -> [(&'static str, Value); 3] {
    [
        ("notification:mark_read", json!({ "id": "n1" })),
        ("notification:mark_all_read", json!({})),
        ("notification:delete", json!({ "id": "n1" })),
    ]
}

#[tokio::test]
async fn inbox_requests_are_rejected_and_not_answered_with_an_empty_inbox() {
    let deployment = Setup::Servers.own_with(forwarding).await;
    let ada = deployment.user("ada");
    let (node, python) = tokio::join!(
        signed_in_without_count(ada.node()),
        signed_in_without_count(ada.python().namespace("/notifications")),
    );
    for device in [&node, &python] {
        let sync = device.events("notification:sync")[0].clone();
        assert_eq!((&sync["revision"], &sync["recovered"]), (&json!(0), &json!(false)));
        assert_eq!(sync.get("unreadCount"), None, "{sync}");
        let reads = [
            ("notification:list", json!({ "page": 2 })),
            ("notification:unread_count", json!(null)),
        ];
        for (message, payload) in changes().into_iter().chain(reads) {
            let reply = device.call(message, payload).await;
            assert_eq!(
                (&reply["status"], &reply["code"]),
                (&json!("error"), &json!("inbox_not_kept")),
                "{message}"
            );
        }
        let synced = device.call("notification:sync", json!({ "since": 7 })).await;
        assert_eq!(synced["data"], sync, "a device loads its list from the service");
        assert!(device.events("notification:unread_count").is_empty(), "{}", device.transcript());
    }
    let http = ada.http();
    for path in ["", "/unread-count", "/n1"] {
        let problem = http.get(&format!("/v1/notifications{path}")).await.expect(409);
        assert_eq!(problem["type"], "urn:belfry:problem:inbox_not_kept");
    }
    http.patch("/v1/notifications/read-all").await.expect(409);
    http.delete("/v1/notifications/n1").await.expect(409);
    let draft = json!({ "userId": ada.id(), "title": "A second inbox" });
    let problem = deployment.service().post("/v1/notifications", &draft).await.expect(409);
    assert!(problem["detail"].as_str().unwrap().contains("amqp.ingest.mode"), "{problem}");
}

#[tokio::test]
async fn change_that_a_device_requests_reaches_the_service() {
    let backends = Setup::Servers.backends().await;
    let broker = backends.broker();
    let compat = "nestjs-default, count-number";
    let belfry = forwarding(backends.belfry())
        .setting("amqp.devices.exchange", broker.devices_exchange())
        .setting("socket.compat", compat);
    let belfry = ready(belfry.start().await).await;
    let ada = User::new("ada", &belfry);
    let device = signed_in_without_count(ada.node()).await;
    let [(mark_read, payload), ..] = changes();
    let amqp = Amqp::connect(broker.url()).await;
    // The service declares this exchange.
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (exchange, arguments) = (broker.devices_exchange(), FieldTable::default());
    let channel = amqp.channel();
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, durable, arguments)
        .await
        .unwrap();
    let unroutable = device.call(mark_read, payload.clone()).await;
    assert_eq!(unroutable["code"], "unavailable", "no queue is bound: {unroutable}");
    belfry.log_line("cannot publish the requests of devices; they get an error").await;
    let service = amqp.tap(&exchange, "device.*").await;
    until_true("the publisher is connected", async || {
        device.call(mark_read, payload.clone()).await["status"] == "ok"
    })
    .await;
    amqp.take(&service).await.unwrap();
    let python = signed_in_without_count(ada.python()).await;
    let n1 = json!({ "userId": ada.id(), "ids": ["n1"], "notificationId": "n1" });
    let expected = [
        ("device.mark_read", n1.clone()),
        ("device.mark_all_read", json!({ "userId": ada.id() })),
        ("device.delete", n1.clone()),
    ];
    for ((message, payload), (pattern, data)) in changes().into_iter().zip(expected) {
        assert_eq!(python.call(message, payload).await, json!({ "status": "ok", "data": {} }));
        // The device gets its ack after the broker's confirm, so the message is in the queue.
        let request = amqp.take(&service).await.unwrap();
        assert_eq!(request.json(), json!({ "pattern": pattern, "data": data }));
        assert_eq!(request.routing_key, pattern);
    }
    // The names and shapes of a NestJS client.
    let reply = device.call("markAsRead", json!({ "notificationId": "n1" })).await;
    assert_eq!(reply, json!({ "success": true }));
    assert_eq!(amqp.take(&service).await.unwrap().json()["data"], n1);
    device.call(mark_read, json!({ "ids": ["n1", "n2"] })).await;
    let request = amqp.take(&service).await.unwrap().json();
    assert_eq!(request["data"], json!({ "userId": ada.id(), "ids": ["n1", "n2"] }));
    let invalid = device.call(mark_read, json!({ "page": 1 })).await;
    assert_eq!(invalid["code"], "payload_invalid");
    device.emit("getUnreadCount", json!({}));
    assert_eq!(device.expect("exception").await["code"], "inbox_not_kept");
    assert!(amqp.take(&service).await.is_none());
    assert!(!belfry.log().contains("lapin"), "lapin would log payloads: {}", belfry.log());
}

#[tokio::test]
async fn requested_change_is_unavailable_while_the_broker_is_down() {
    let (server, database) = tokio::join!(RabbitServer::start_own(), fresh_database());
    let backends = Backends { database: Some(database), broker: Some(server.fresh_prefix()) };
    let exchange = backends.broker().devices_exchange();
    let belfry = forwarding(backends.belfry()).setting("amqp.devices.exchange", exchange);
    let belfry = ready(belfry.start().await).await;
    let ada = User::new("ada", &belfry);
    let device = signed_in_without_count(ada.node()).await;
    server.stop().await;
    for (message, payload) in changes() {
        let reply = device.call(message, payload).await;
        assert_eq!((&reply["status"], &reply["code"]), (&json!("error"), &json!("unavailable")));
    }
    // A device needs neither the broker nor an inbox to connect.
    signed_in_without_count(ada.python()).await;
}

#[tokio::test]
async fn further_patterns_reach_devices_under_configured_names() {
    let configure = |builder: Builder| {
        let events = "order.shipped=order:shipped, *=notification:event";
        forwarding(builder).setting("amqp.forward.events", events)
    };
    let deployment = Setup::Servers.own_with(configure).await;
    let ada = deployment.user("ada");
    let device = signed_in_without_count(ada.node()).await;
    let broker = deployment.broker();
    let amqp = Amqp::connect(broker.url()).await;
    let tap = amqp.tap(&broker.events_exchange(), "order.*").await;
    for (pattern, event) in [
        ("order.shipped", "order:shipped"),
        ("order.paid", "notification:event"),
        ("notification.deleted", "notification:deleted"),
    ] {
        let data = json!({ "userId": ada.id(), "orderId": 7, "a": [1.5, null] });
        let message = json!({ "pattern": pattern, "data": data });
        amqp.send(&broker.ingest_queue(), &message).await;
        assert_eq!(device.expect(event).await, data, "{pattern}");
    }
    assert_eq!(amqp.next(&tap).await.routing_key, "order.shipped");
    assert_eq!(amqp.next(&tap).await.json()["pattern"], "order.paid");
    let lost = json!({ "pattern": "order.lost", "data": { "orderId": 7 } });
    amqp.send(&broker.ingest_queue(), &lost).await;
    let dead = amqp.next(&broker.dead_queue()).await;
    assert!(dead.header("x-belfry-error").unwrap().contains("userId"), "{dead:?}");
}
