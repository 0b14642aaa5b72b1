//! Events over the broker: to other services, and to Belfry's own nodes.

use belfry_tests::amqp::{Amqp, Message};
use belfry_tests::clients::{Device, run_script};
use belfry_tests::http::send;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Setup, User, key, notify, ready, service, signed_in, signed_in_without_count};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn traceparent() -> String {
    format!("00-{TRACE_ID}-00f067aa0ba902b7-01")
}

/// Checks the properties that all events have in common, and returns the data.
fn checked(event: &Message, pattern: &str) -> Value {
    assert_eq!(event.routing_key, pattern);
    let properties = &event.properties;
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_ne!(properties.message_id().as_ref().unwrap().as_str(), "");
    assert!(properties.timestamp().is_some_and(|seconds| seconds > 1_700_000_000));
    let body = event.json();
    let mut keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    // With an `id` beside the pattern, the event would be a request for NestJS.
    assert_eq!(keys, ["data", "pattern"]);
    assert_eq!(body["pattern"], pattern);
    body["data"].clone()
}

#[tokio::test]
async fn events_exchange_carries_every_change_in_its_documented_form() {
    let deployment = Setup::Servers.own().await;
    let ada = deployment.user("ada");
    let amqp = Amqp::connect(deployment.broker().url()).await;
    let tap = amqp.tap(&deployment.broker().events_exchange(), "#").await;

    let draft = json!({ "userId": ada.id(), "id": "n1", "title": "Hello", "data": { "a": 1 } });
    let request = deployment.service().request(Method::POST, "/v1/notifications");
    let created = send(request.json(&draft).header("traceparent", traceparent())).await.expect(201);
    let event = amqp.next(&tap).await;
    let expected =
        json!({ "userId": ada.id(), "notification": created, "unreadCount": 1, "revision": 1 });
    assert_eq!(checked(&event, "notification.created"), expected);
    assert!(event.header("traceparent").unwrap().contains(TRACE_ID), "{event:?}");
    let mut message_ids = vec![event.properties.message_id().clone()];

    notify(&deployment.belfry, &ada, json!({ "id": "n2", "title": "Hello" })).await;
    let event = amqp.next(&tap).await;
    assert_eq!(checked(&event, "notification.created")["notification"]["id"], "n2");
    let trace = event.header("traceparent").expect("a request without a trace begins one");
    assert!(trace.starts_with("00-") && !trace.contains(TRACE_ID), "{trace}");
    message_ids.push(event.properties.message_id().clone());

    let http = ada.http();
    http.patch("/v1/notifications/n1/read").await.expect(200);
    let event = amqp.next(&tap).await;
    let data = checked(&event, "notification.marked_read");
    let expected = json!({
        "userId": ada.id(), "ids": ["n1"], "notificationId": "n1", "readAt": data["readAt"],
        "unreadCount": 1, "revision": 3,
    });
    assert_eq!(data, expected);
    message_ids.push(event.properties.message_id().clone());

    http.patch("/v1/notifications/read-all").await.expect(200);
    let event = amqp.next(&tap).await;
    let data = checked(&event, "notification.all_read");
    let expected =
        json!({ "userId": ada.id(), "readAt": data["readAt"], "unreadCount": 0, "revision": 4 });
    assert_eq!(data, expected);
    message_ids.push(event.properties.message_id().clone());

    http.delete("/v1/notifications/n2").await.expect(204);
    let event = amqp.next(&tap).await;
    let expected = json!({
        "userId": ada.id(), "ids": ["n2"], "notificationId": "n2", "unreadCount": 0, "revision": 5,
    });
    assert_eq!(checked(&event, "notification.deleted"), expected);
    message_ids.push(event.properties.message_id().clone());

    let epoch = http.get("/v1/notifications").await.expect(200)["epoch"].clone();
    let operator = key().token("operator").scope("users:erase").sign();
    let erase = format!("/v1/users/{}", ada.id());
    deployment.belfry.http().bearer(operator).delete(&erase).await.expect(204);
    let event = amqp.next(&tap).await;
    let expected = json!({ "userId": ada.id(), "epoch": epoch, "unreadCount": 0, "revision": 6 });
    assert_eq!(checked(&event, "notification.all_erased"), expected);
    message_ids.push(event.properties.message_id().clone());

    message_ids.sort();
    message_ids.dedup();
    assert_eq!(message_ids.len(), 6, "each event has its own id");
    assert!(amqp.take(&tap).await.is_none(), "each event is published once");
}

#[tokio::test]
async fn trace_continues_from_an_ingested_message_to_its_event() {
    let deployment = Setup::Servers.shared().await;
    let ada = deployment.user("ada");
    let amqp = Amqp::connect(deployment.broker().url()).await;
    let tap = amqp.tap(&deployment.broker().events_exchange(), "notification.created").await;

    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent().into()));
    let properties = BasicProperties::default().with_headers(headers);
    let data = json!({ "userId": ada.id(), "title": "Hello" });
    let body = json!({ "pattern": "notification.create", "data": data }).to_string();
    amqp.publish("", &deployment.broker().ingest_queue(), body, properties).await;

    // Other tests share the exchange.
    let event = loop {
        let event = amqp.next(&tap).await;
        if event.json()["data"]["userId"] == ada.id() {
            break event;
        }
    };
    assert!(event.header("traceparent").unwrap().contains(TRACE_ID), "{event:?}");
}

/// The ids of the `notification:new` events of a device, in order.
fn new_ids(device: &Device) -> Vec<Value> {
    device.events("notification:new").into_iter().map(|new| new["id"].clone()).collect()
}

#[tokio::test]
async fn event_of_one_node_is_delivered_once_by_every_node() {
    let backends = Setup::Servers.backends().await;
    let (one, other) = tokio::join!(backends.start(), backends.start());
    let ada = User::new("ada", &one);
    let devices = tokio::join!(
        signed_in(ada.node()),
        signed_in(ada.at(&other).node().namespace("/notifications")),
        signed_in(ada.at(&other).python().transports(["polling"])),
    );
    let devices = [devices.0, devices.1, devices.2];

    for (n, belfry) in (1..=6).zip([&one, &other].into_iter().cycle()) {
        let id = format!("n{n}");
        notify(belfry, &ada, json!({ "id": id, "title": "Hello" })).await;
    }
    for device in &devices {
        for n in 1..=6 {
            let new = device.expect("notification:new").await;
            assert_eq!((&new["id"], &new["revision"]), (&json!(format!("n{n}")), &json!(n)));
            let count = device.expect("notification:unread_count").await;
            assert_eq!(count, json!({ "count": n, "revision": n }));
        }
    }
    // A notification that is marked as read at one node is marked on the devices of all nodes.
    devices[1].call("notification:mark_read", json!({ "id": "n1" })).await;
    for device in &devices {
        assert_eq!(device.expect("notification:marked_read").await["ids"], json!(["n1"]));
    }
    for device in &devices {
        let transcript = device.transcript();
        assert_eq!(new_ids(device).len(), 6, "each event is delivered once: {transcript}");
    }
}

#[tokio::test]
async fn device_that_moves_to_another_node_catches_up_there() {
    let backends = Setup::Servers.backends().await;
    let (one, other) = tokio::join!(backends.start(), backends.start());
    let ada = User::new("ada", &one);
    let device = signed_in(ada.node()).await;
    notify(&one, &ada, json!({ "id": "n1", "title": "Hello" })).await;
    let since = device.expect("notification:new").await["revision"].clone();
    let epoch = device.events("notification:sync")[0]["epoch"].clone();
    drop(device);
    notify(&one, &ada, json!({ "id": "n2", "title": "Hello" })).await;

    let moved = ada.at(&other).node().auth("since", since).auth("epoch", epoch).connect().await;
    let sync = moved.expect("notification:sync").await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(1)));
    assert_eq!(moved.expect("notification:new").await["id"], "n2");
}

/// The notification of a service with its own inbox, in a format that Belfry does not know.
fn foreign(user: &User) -> Value {
    json!({
        "_id": "507f1f77bcf86cd799439011", "userId": user.id(), "text": "Grüße 📦", "amount": 1.5,
        "createdAt": "yesterday", "nested": { "list": [1, null, "x"], "empty": {} }, "title": "",
    })
}

#[tokio::test]
async fn forward_mode_passes_events_unchanged_to_every_node_and_stores_nothing() {
    let backends = Setup::Servers.backends().await;
    let start = async || {
        ready(backends.belfry().setting("amqp.ingest.mode", "forward").start().await).await
    };
    let (one, other) = tokio::join!(start(), start());
    let (ada, bob) = (User::new("ada", &one), User::new("bob", &one));
    let devices = tokio::join!(
        signed_in_without_count(ada.node()),
        signed_in_without_count(ada.python().namespace("/notifications")),
        signed_in_without_count(ada.at(&other).node().transports(["polling"])),
        signed_in_without_count(bob.at(&other).node()),
    );
    let (adas, bobs) = ([devices.0, devices.1, devices.2], devices.3);
    let broker = backends.broker();
    let events = [
        json!({ "pattern": "notification.created", "data": {
            "userId": ada.id(), "notification": foreign(&ada), "unreadCount": 7,
        }}),
        json!({ "pattern": "notification.created", "data": foreign(&ada) }),
        json!({ "pattern": "notification.marked_read", "data": {
            "userId": ada.id(), "notificationId": "507f1f77bcf86cd799439011", "unreadCount": 6,
        }}),
    ];
    let config = json!({ "url": broker.url(), "queue": broker.ingest_queue(), "events": events });
    run_script("nest-emit.mjs", &config).await;

    for device in &adas {
        assert_eq!(device.expect("notification:new").await, foreign(&ada));
        assert_eq!(device.expect("notification:unread_count").await["count"], 7);
        assert_eq!(device.expect("notification:new").await, foreign(&ada));
        let read = device.expect("notification:marked_read").await;
        assert_eq!(read["notificationId"], "507f1f77bcf86cd799439011");
        assert_eq!(device.expect("notification:unread_count").await["count"], 6);
    }
    let amqp = Amqp::connect(broker.url()).await;
    let body = json!({ "pattern": "notification.created", "data": foreign(&bob) });
    amqp.send(&broker.ingest_queue(), &body).await;
    assert_eq!(bobs.expect("notification:new").await, foreign(&bob));
    assert_eq!(new_ids(&bobs).len(), 1);
    for device in &adas {
        assert_eq!(new_ids(device).len(), 2, "{}", device.transcript());
        assert_eq!(device.events("notification:unread_count").len(), 2, "{}", device.transcript());
    }
}

/// The events do not pass the broker, which has no queue for this node.
#[tokio::test]
async fn only_node_delivers_without_a_node_queue() {
    let configure = |builder: belfry_tests::process::Builder| {
        builder.setting("amqp.ingest.only_node", true).setting("node.name", "alone")
    };
    let deployment = Setup::Servers.own_with(configure).await;
    let (ada, broker) = (deployment.user("ada"), deployment.broker());
    let devices = ada.two_devices().await;
    let amqp = Amqp::connect(broker.url()).await;

    deployment.notify(&ada, json!({ "id": "n1", "title": "By REST" })).await;
    let data = json!({ "userId": ada.id(), "id": "n2", "title": "By RabbitMQ" });
    let create = json!({ "pattern": "notification.create", "data": data });
    amqp.send(&broker.ingest_queue(), &create).await;
    let read = json!({ "userId": ada.id(), "ids": ["n1"] });
    let read = json!({ "pattern": "notification.mark_read", "data": read });
    amqp.send(&broker.ingest_queue(), &read).await;

    for device in &devices {
        let new =
            [device.expect("notification:new").await, device.expect("notification:new").await];
        assert_eq!(new.map(|new| new["id"].clone()), ["n1", "n2"]);
        for count in [1, 2, 1] {
            assert_eq!(device.expect("notification:unread_count").await["count"], count);
        }
    }
    assert_eq!(amqp.count(&broker.node_queue("alone")).await, None);
}

#[tokio::test]
async fn forward_mode_dead_letters_messages_without_a_recipient() {
    let configure =
        |builder: belfry_tests::process::Builder| builder.setting("amqp.ingest.mode", "forward");
    let deployment = Setup::Servers.own_with(configure).await;
    let ada = deployment.user("ada");
    let device = signed_in_without_count(ada.node()).await;
    let broker = deployment.broker();
    let amqp = Amqp::connect(broker.url()).await;
    for data in [json!({ "title": "To whom?" }), foreign(&ada)] {
        let body = json!({ "pattern": "notification.created", "data": data });
        amqp.send(&broker.ingest_queue(), &body).await;
    }
    assert_eq!(device.expect("notification:new").await, foreign(&ada));
    let dead = amqp.next(&broker.dead_queue()).await;
    assert_eq!(dead.json()["data"]["title"], "To whom?");
}

#[tokio::test]
async fn ingest_queue_declared_by_nestjs_is_used_unchanged() {
    let backends = Setup::Servers.backends().await;
    let broker = backends.broker();
    let amqp = Amqp::connect(broker.url()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(10_000));
    amqp.declare_queue(&broker.ingest_queue(), arguments).await;
    let belfry = backends.start().await;
    let ada = User::new("ada", &belfry);
    let device = signed_in(ada.node()).await;

    let event = json!({
        "pattern": "notification.created", "data": { "userId": ada.id(), "title": "Hello" },
    });
    let config = json!({
        "url": broker.url(), "queue": broker.ingest_queue(), "events": [event],
        "queueOptions": { "durable": true, "maxLength": 10_000 },
    });
    run_script("nest-emit.mjs", &config).await;
    assert_eq!(device.expect("notification:new").await["title"], "Hello");
    amqp.send(&broker.ingest_queue(), &json!({ "pattern": "nonsense" })).await;
    until_true("the message is in the dead queue", async || {
        amqp.count(&broker.dead_queue()).await == Some(1)
    })
    .await;
}

#[tokio::test]
async fn inbox_and_duplicates_are_the_same_at_every_node() {
    let backends = Setup::Servers.backends().await;
    let (one, other) = tokio::join!(backends.start(), backends.start());
    let ada = User::new("ada", &one);
    let draft = json!({ "userId": ada.id(), "id": "n1", "title": "Hello" });
    let created = service(&one).post("/v1/notifications", &draft).await.expect(201);
    // The retry of a request, which a load balancer sends to the other node.
    let again = service(&other).post("/v1/notifications", &draft).await.expect(200);
    assert_eq!(again, created);
    let page = ada.at(&other).http().get("/v1/notifications").await.expect(200);
    assert_eq!(page["items"], json!([created]));
}
