//! Delivery: a notification from any source reaches all devices of its user and no others.

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::{Device, run_script};
use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, User, signed_in};

on_both_setups!(
    posted_notification_reaches_all_devices_of_its_user_and_no_others,
    missing_fields_of_a_draft_get_defaults,
    one_request_notifies_many_users,
    batch_creates_notifications_for_several_users,
    same_id_twice_makes_one_notification,
    same_id_for_two_users_makes_two_notifications,
    concurrent_notifications_are_delivered_in_order_with_exact_counts,
    user_id_that_looks_like_a_room_receives_nothing_of_the_room,
);

/// A draft with all fields.
fn order_shipped(id: &str) -> Value {
    json!({
        "id": id,
        "type": "order.shipped",
        "title": "Your order is on its way",
        "message": "It left the warehouse this morning.\n<b>“Größe L”</b> 📦",
        "data": { "orderId": 7, "price": 12.50, "items": [{ "sku": "A-1" }], "none": null },
        "link": "/orders/7",
        "priority": "high",
        "createdAt": "2026-11-23T09:15:30.123456+01:00",
        "expiresAt": "2126-11-23T08:15:30Z",
    })
}

/// The notification that devices receive for [`order_shipped`].
fn as_delivered(id: &str, user: &User, revision: u64) -> Value {
    let delivered = json!({
        "userId": user.id(), "isRead": false, "readAt": null, "revision": revision,
        "createdAt": "2026-11-23T08:15:30.123Z", "expiresAt": "2126-11-23T08:15:30.000Z",
    });
    with_fields(order_shipped(id), delivered)
}

fn with_fields(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more} is no object") };
    body.as_object_mut().unwrap().extend(more);
    body
}

fn for_user(user: &User, body: Value) -> Value {
    with_fields(body, json!({ "userId": user.id() }))
}

/// Checks that the next events of each device are this notification and this count.
async fn assert_each_receives(devices: &[Device], notification: &Value, count: u64) {
    for device in devices {
        assert_eq!(device.expect("notification:new").await, *notification);
        let expected = json!({ "count": count, "revision": notification["revision"] });
        assert_eq!(device.expect("notification:unread_count").await, expected);
    }
}

/// Checks that these devices have received nothing so far: their first notification is one that is created
/// now.
async fn assert_received_nothing(deployment: &Deployment, user: &User, devices: &[Device]) {
    let sent = deployment.notify(user, json!({ "title": "For you alone" })).await;
    assert_each_receives(devices, &sent, 1).await;
}

async fn posted_notification_reaches_all_devices_of_its_user_and_no_others(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    let (adas, bobs) = tokio::join!(ada.devices(), bob.two_devices());
    // One of the devices upgrades from polling to a WebSocket meanwhile.
    adas[2].of_kind("upgrade").await;

    let answer = deployment.notify(&ada, order_shipped("n1")).await;

    assert_eq!(answer, as_delivered("n1", &ada, 1));
    assert_each_receives(&adas, &as_delivered("n1", &ada, 1), 1).await;
    assert_received_nothing(&deployment, &bob, &bobs).await;
}

async fn missing_fields_of_a_draft_get_defaults(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;

    deployment.notify(&ada, json!({ "title": "Hello" })).await;

    let new = device.expect("notification:new").await;
    let id = new["id"].as_str().unwrap();
    let id: uuid::Uuid = id.parse().unwrap_or_else(|error| panic!("{id}: {error}"));
    assert_eq!(id.get_version_num(), 7, "{id}");
    let created_at = new["createdAt"].as_str().unwrap();
    assert!(created_at.ends_with('Z') && created_at.len() == 24, "{created_at}");
    let expected = json!({
        "id": new["id"], "userId": ada.id(), "type": "general", "title": "Hello", "message": "",
        "data": null, "link": null, "priority": "normal", "isRead": false, "readAt": null,
        "createdAt": created_at, "expiresAt": null, "revision": 1,
    });
    assert_eq!(new, expected);
}

async fn one_request_notifies_many_users(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, bob, eve) = (deployment.user("ada"), deployment.user("bob"), deployment.user("eve"));
    let (adas, bobs, eves) =
        tokio::join!(signed_in(ada.node()), signed_in(bob.python()), signed_in(eve.node()));

    let body = with_fields(order_shipped("n1"), json!({ "userIds": [ada.id(), bob.id()] }));
    deployment.service().post("/v1/notifications", &body).await.expect(201);

    assert_each_receives(&[adas], &as_delivered("n1", &ada, 1), 1).await;
    assert_each_receives(&[bobs], &as_delivered("n1", &bob, 1), 1).await;
    assert_received_nothing(&deployment, &eve, &[eves]).await;
}

async fn batch_creates_notifications_for_several_users(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    let (adas, bobs) = tokio::join!(signed_in(ada.node()), signed_in(bob.python()));

    let body = json!({ "notifications": [
        for_user(&ada, order_shipped("n1")),
        for_user(&bob, order_shipped("n2")),
        for_user(&ada, order_shipped("n3")),
    ]});
    deployment.service().post("/v1/notifications/batch", &body).await.expect(201);

    let adas = [adas];
    assert_each_receives(&adas, &as_delivered("n1", &ada, 1), 1).await;
    assert_each_receives(&adas, &as_delivered("n3", &ada, 2), 2).await;
    assert_each_receives(&[bobs], &as_delivered("n2", &bob, 1), 1).await;
}

async fn same_id_twice_makes_one_notification(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let device = [signed_in(ada.node()).await];

    let first = deployment.notify(&ada, order_shipped("n1")).await;
    let (service, path) = (deployment.service(), "/v1/notifications");
    let same = for_user(&ada, order_shipped("n1"));
    assert_eq!(service.post(path, &same).await.expect(200), first);
    let other =
        for_user(&ada, with_fields(order_shipped("n1"), json!({ "title": "Another one?" })));
    assert_eq!(service.post(path, &other).await.expect(409)["code"], "notification_differs");
    if let Some(broker) = &deployment.backends.broker {
        let amqp = Amqp::connect(broker.url()).await;
        for data in [same, other] {
            let body = json!({ "pattern": "notification.create", "data": data });
            amqp.send(&broker.ingest_queue(), &body).await;
        }
    }
    assert_eq!(deployment.stored(&ada, "n1").await, first);
    deployment.until_delivered(&ada, &device, "n2").await;

    let delivered: Vec<_> = device[0].events("notification:new");
    let ids: Vec<_> = delivered.iter().map(|new| new["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["n1", "n2"]);
    assert_eq!(ada.http().get("/v1/notifications/unread-count").await.expect(200)["count"], 2);
}

async fn same_id_for_two_users_makes_two_notifications(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    for user in [&ada, &bob] {
        deployment.notify(user, order_shipped("n1")).await;
    }
    for user in [&ada, &bob] {
        assert_eq!(deployment.stored(user, "n1").await, as_delivered("n1", user, 1));
    }
}

async fn concurrent_notifications_are_delivered_in_order_with_exact_counts(setup: Setup) {
    const MANY: u64 = 40;
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let devices = ada.two_devices().await;

    join_all((1..=MANY).map(async |n| {
        deployment.notify(&ada, json!({ "id": format!("n{n}"), "title": "One of many" })).await
    }))
    .await;

    for device in &devices {
        let mut ids = Vec::new();
        for n in 1..=MANY {
            let new = device.expect("notification:new").await;
            assert_eq!(new["revision"], n, "{new}");
            ids.push(new["id"].as_str().unwrap().to_owned());
            let count = device.expect("notification:unread_count").await;
            assert_eq!(count, json!({ "count": n, "revision": n }));
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len() as u64, MANY, "each notification is delivered once");
    }
    assert_eq!(ada.http().get("/v1/notifications/unread-count").await.expect(200)["count"], MANY);
}

async fn user_id_that_looks_like_a_room_receives_nothing_of_the_room(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let eve = ada.called(&format!("user:{}", ada.id()));
    let (adas, eves) = tokio::join!(signed_in(ada.node()), signed_in(eve.node()));

    deployment.notify(&ada, order_shipped("n1")).await;

    assert_each_receives(&[adas], &as_delivered("n1", &ada, 1), 1).await;
    assert_received_nothing(&deployment, &eve, &[eves]).await;
}

/// Ada with two devices and bob with one device, on the set-up with a broker.
async fn ada_and_bob() -> (std::sync::Arc<Deployment>, User, [Device; 2], User, [Device; 1]) {
    let deployment = Setup::Servers.shared().await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    let (adas, bobs) = tokio::join!(ada.two_devices(), signed_in(bob.node()));
    (deployment, ada, adas, bob, [bobs])
}

#[tokio::test]
async fn nestjs_message_in_the_ingest_queue_is_delivered() {
    let (deployment, ada, adas, bob, bobs) = ada_and_bob().await;
    let amqp = Amqp::connect(deployment.broker().url()).await;
    let nested = json!({
        "userId": ada.id(), "notification": order_shipped("n3"), "unreadCount": 99, "more": {},
    });
    for (n, (pattern, data)) in (1..).zip([
        ("notification.create", for_user(&ada, order_shipped("n1"))),
        ("notification.created", for_user(&ada, order_shipped("n2"))),
        ("notification.created", nested),
    ]) {
        let body = json!({ "pattern": pattern, "data": data });
        amqp.send(&deployment.broker().ingest_queue(), &body).await;
        let mut delivered = as_delivered(&format!("n{n}"), &ada, n);
        if n == 3 {
            // The unknown field `more` becomes part of `data`.
            delivered["data"]["more"] = json!({});
        }
        assert_each_receives(&adas, &delivered, n).await;
    }
    assert_received_nothing(&deployment, &bob, &bobs).await;
}

#[tokio::test]
async fn event_of_a_real_nestjs_service_is_delivered() {
    let (deployment, ada, adas, bob, bobs) = ada_and_bob().await;
    let broker = deployment.broker();
    let emit = async |id: &str, options: Value| {
        let event = json!({ "pattern": "notification.created", "data": {
            "userId": ada.id(), "notification": order_shipped(id),
        }});
        let config = json!({
            "url": broker.url(), "queue": broker.ingest_queue(), "events": [event],
            "options": options,
        });
        let reports = run_script("nest-emit.mjs", &config).await;
        assert_eq!(reports.last().unwrap()["kind"], "done");
    };

    emit("n1", json!({})).await;
    assert_each_receives(&adas, &as_delivered("n1", &ada, 1), 1).await;
    emit("n2", json!({ "wildcards": true, "persistent": true })).await;
    assert_each_receives(&adas, &as_delivered("n2", &ada, 2), 2).await;
    assert_received_nothing(&deployment, &bob, &bobs).await;
}

#[tokio::test]
async fn bare_data_is_delivered_by_its_routing_key_or_type() {
    let (deployment, ada, adas, bob, bobs) = ada_and_bob().await;
    let ingest = deployment.broker().ingest_queue();
    let amqp = Amqp::connect(deployment.broker().url()).await;

    let bare = |id: &str| for_user(&ada, order_shipped(id)).to_string();
    let plain = BasicProperties::default();
    amqp.publish(&ingest, "notification.create", bare("n1"), plain.clone()).await;
    assert_each_receives(&adas, &as_delivered("n1", &ada, 1), 1).await;
    let typed = plain.with_type("notification.created".into());
    amqp.publish("", &ingest, bare("n2"), typed).await;
    assert_each_receives(&adas, &as_delivered("n2", &ada, 2), 2).await;
    assert_received_nothing(&deployment, &bob, &bobs).await;
}

#[tokio::test]
async fn cloudevent_is_delivered() {
    let (deployment, ada, adas, bob, bobs) = ada_and_bob().await;
    let ingest = deployment.broker().ingest_queue();
    let amqp = Amqp::connect(deployment.broker().url()).await;

    let structured = json!({
        "specversion": "1.0", "id": "e1", "source": "/shop", "type": "notification.create",
        "time": "2026-11-23T08:15:30Z", "datacontenttype": "application/json",
        "data": for_user(&ada, order_shipped("n1")),
    });
    let properties = BasicProperties::default()
        .with_content_type("application/cloudevents+json; charset=utf-8".into());
    amqp.publish("", &ingest, structured.to_string(), properties).await;
    assert_each_receives(&adas, &as_delivered("n1", &ada, 1), 1).await;

    let mut headers = FieldTable::default();
    for (name, value) in [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:id", "e2"),
        ("cloudEvents:source", "/shop"),
        ("cloudEvents:type", "notification.created"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers);
    let binary = for_user(&ada, order_shipped("n2")).to_string();
    amqp.publish("", &ingest, binary, properties).await;
    assert_each_receives(&adas, &as_delivered("n2", &ada, 2), 2).await;
    assert_received_nothing(&deployment, &bob, &bobs).await;
}
