//! Whatever way something is said, every device of its user hears it, and nobody else does.

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::{Device, run_script};
use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::setup::{Place, Setup, User, signed_in};

on_both_setups!(
    what_a_service_posts_reaches_every_device_of_its_user_and_nobody_else,
    a_draft_with_a_title_alone_is_filled_up,
    one_request_tells_many_users,
    a_batch_tells_each_user_their_own,
    the_same_id_twice_is_one_notification,
    the_same_id_for_two_users_is_two_notifications,
    what_comes_at_once_is_told_one_after_another_and_counted_exactly,
    a_user_who_is_called_like_a_room_hears_nothing_of_it,
);

/// All that a service can say of a notification.
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

/// What devices are told of [`order_shipped`].
fn as_told(id: &str, user: &User, revision: u64) -> Value {
    let told = json!({
        "userId": user.id(), "isRead": false, "readAt": null, "revision": revision,
        "createdAt": "2026-11-23T08:15:30.123Z", "expiresAt": "2126-11-23T08:15:30.000Z",
    });
    with(order_shipped(id), told)
}

fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more} is no object") };
    body.as_object_mut().unwrap().extend(more);
    body
}

fn to(user: &User, body: Value) -> Value {
    with(body, json!({ "userId": user.id() }))
}

/// Each device hears of that notification, and of that count with it, next.
async fn each_hears(devices: &[Device], notification: &Value, count: u64) {
    for device in devices {
        assert_eq!(device.expect("notification:new").await, *notification);
        let expected = json!({ "count": count, "revision": notification["revision"] });
        assert_eq!(device.expect("notification:unread_count").await, expected);
    }
}

/// Nothing was told to these devices yet: the first they hear of is sent to them now.
async fn heard_nothing(place: &Place, user: &User, devices: &[Device]) {
    let sent = place.notify(user, json!({ "title": "For you alone" })).await;
    each_hears(devices, &sent, 1).await;
}

async fn what_a_service_posts_reaches_every_device_of_its_user_and_nobody_else(setup: Setup) {
    let place = setup.shared().await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let (adas, bobs) = tokio::join!(ada.devices(), bob.two_devices());
    // The one that began by polling goes on by a websocket, and is told all the same.
    adas[2].of_kind("upgrade").await;

    let answer = place.notify(&ada, order_shipped("n1")).await;

    assert_eq!(answer, as_told("n1", &ada, 1));
    each_hears(&adas, &as_told("n1", &ada, 1), 1).await;
    heard_nothing(&place, &bob, &bobs).await;
}

async fn a_draft_with_a_title_alone_is_filled_up(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    let device = signed_in(ada.node()).await;

    place.notify(&ada, json!({ "title": "Hello" })).await;

    let told = device.expect("notification:new").await;
    let id = told["id"].as_str().unwrap();
    let id: uuid::Uuid = id.parse().unwrap_or_else(|error| panic!("{id}: {error}"));
    assert_eq!(id.get_version_num(), 7, "{id}");
    let created_at = told["createdAt"].as_str().unwrap();
    assert!(created_at.ends_with('Z') && created_at.len() == 24, "{created_at}");
    let expected = json!({
        "id": told["id"], "userId": ada.id(), "type": "general", "title": "Hello", "message": "",
        "data": null, "link": null, "priority": "normal", "isRead": false, "readAt": null,
        "createdAt": created_at, "expiresAt": null, "revision": 1,
    });
    assert_eq!(told, expected);
}

async fn one_request_tells_many_users(setup: Setup) {
    let place = setup.shared().await;
    let (ada, bob, eve) = (place.user("ada"), place.user("bob"), place.user("eve"));
    let (adas, bobs, eves) =
        tokio::join!(signed_in(ada.node()), signed_in(bob.python()), signed_in(eve.node()));

    let body = with(order_shipped("n1"), json!({ "userIds": [ada.id(), bob.id()] }));
    place.service().post("/v1/notifications", &body).await.expect(201);

    each_hears(&[adas], &as_told("n1", &ada, 1), 1).await;
    each_hears(&[bobs], &as_told("n1", &bob, 1), 1).await;
    heard_nothing(&place, &eve, &[eves]).await;
}

async fn a_batch_tells_each_user_their_own(setup: Setup) {
    let place = setup.shared().await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let (adas, bobs) = tokio::join!(signed_in(ada.node()), signed_in(bob.python()));

    let body = json!({ "notifications": [
        to(&ada, order_shipped("n1")),
        to(&bob, order_shipped("n2")),
        to(&ada, order_shipped("n3")),
    ]});
    place.service().post("/v1/notifications/batch", &body).await.expect(201);

    let adas = [adas];
    each_hears(&adas, &as_told("n1", &ada, 1), 1).await;
    each_hears(&adas, &as_told("n3", &ada, 2), 2).await;
    each_hears(&[bobs], &as_told("n2", &bob, 1), 1).await;
}

async fn the_same_id_twice_is_one_notification(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    let device = [signed_in(ada.node()).await];

    let first = place.notify(&ada, order_shipped("n1")).await;
    let (service, path) = (place.service(), "/v1/notifications");
    let same = to(&ada, order_shipped("n1"));
    assert_eq!(service.post(path, &same).await.expect(200), first);
    let other = to(&ada, with(order_shipped("n1"), json!({ "title": "Another one?" })));
    assert_eq!(service.post(path, &other).await.expect(409)["code"], "notification_differs");
    if let Some(broker) = &place.ground.broker {
        let amqp = Amqp::connect(broker.url()).await;
        for data in [same, other] {
            let body = json!({ "pattern": "notification.create", "data": data });
            amqp.send(&broker.ingest_queue(), &body).await;
        }
    }
    assert_eq!(place.stored(&ada, "n1").await, first);
    place.until_told(&ada, &device, "n2").await;

    let told: Vec<_> = device[0].events("notification:new");
    let ids: Vec<_> = told.iter().map(|told| told["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["n1", "n2"]);
    assert_eq!(ada.http().get("/v1/notifications/unread-count").await.expect(200)["count"], 2);
}

async fn the_same_id_for_two_users_is_two_notifications(setup: Setup) {
    let place = setup.shared().await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    for user in [&ada, &bob] {
        place.notify(user, order_shipped("n1")).await;
    }
    for user in [&ada, &bob] {
        assert_eq!(place.stored(user, "n1").await, as_told("n1", user, 1));
    }
}

async fn what_comes_at_once_is_told_one_after_another_and_counted_exactly(setup: Setup) {
    const MANY: u64 = 40;
    let place = setup.shared().await;
    let ada = place.user("ada");
    let devices = ada.two_devices().await;

    join_all((1..=MANY).map(async |n| {
        place.notify(&ada, json!({ "id": format!("n{n}"), "title": "One of many" })).await
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
        assert_eq!(ids.len() as u64, MANY, "each is told once");
    }
    assert_eq!(ada.http().get("/v1/notifications/unread-count").await.expect(200)["count"], MANY);
}

async fn a_user_who_is_called_like_a_room_hears_nothing_of_it(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    let eve = ada.called(&format!("user:{}", ada.id()));
    let (adas, eves) = tokio::join!(signed_in(ada.node()), signed_in(eve.node()));

    place.notify(&ada, order_shipped("n1")).await;

    each_hears(&[adas], &as_told("n1", &ada, 1), 1).await;
    heard_nothing(&place, &eve, &[eves]).await;
}

/// Two of ada's devices and one of bob's, on the set-up with a broker.
async fn ada_and_bob() -> (std::sync::Arc<Place>, User, [Device; 2], User, [Device; 1]) {
    let place = Setup::Servers.shared().await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let (adas, bobs) = tokio::join!(ada.two_devices(), signed_in(bob.node()));
    (place, ada, adas, bob, [bobs])
}

#[tokio::test]
async fn what_is_said_in_nestjs_shape_in_the_ingest_queue_is_told() {
    let (place, ada, adas, bob, bobs) = ada_and_bob().await;
    let amqp = Amqp::connect(place.broker().url()).await;
    let nested = json!({
        "userId": ada.id(), "notification": order_shipped("n3"), "unreadCount": 99, "more": {},
    });
    for (n, (pattern, data)) in (1..).zip([
        ("notification.create", to(&ada, order_shipped("n1"))),
        ("notification.created", to(&ada, order_shipped("n2"))),
        ("notification.created", nested),
    ]) {
        let body = json!({ "pattern": pattern, "data": data });
        amqp.send(&place.broker().ingest_queue(), &body).await;
        each_hears(&adas, &as_told(&format!("n{n}"), &ada, n), n).await;
    }
    heard_nothing(&place, &bob, &bobs).await;
}

#[tokio::test]
async fn what_a_real_nestjs_service_emits_is_told() {
    let (place, ada, adas, bob, bobs) = ada_and_bob().await;
    let broker = place.broker();
    let emit = async |id: &str, options: Value| {
        let event = json!({ "pattern": "notification.created", "data": {
            "userId": ada.id(), "notification": order_shipped(id),
        }});
        let config = json!({
            "url": broker.url(), "queue": broker.ingest_queue(), "events": [event],
            "options": options,
        });
        let said = run_script("nest-emit.mjs", &config).await;
        assert_eq!(said.last().unwrap()["kind"], "done");
    };

    emit("n1", json!({})).await;
    each_hears(&adas, &as_told("n1", &ada, 1), 1).await;
    emit("n2", json!({ "wildcards": true, "persistent": true })).await;
    each_hears(&adas, &as_told("n2", &ada, 2), 2).await;
    heard_nothing(&place, &bob, &bobs).await;
}

#[tokio::test]
async fn bare_data_is_told_by_its_routing_key_or_its_type() {
    let (place, ada, adas, bob, bobs) = ada_and_bob().await;
    let ingest = place.broker().ingest_queue();
    let amqp = Amqp::connect(place.broker().url()).await;

    let bare = |id: &str| to(&ada, order_shipped(id)).to_string();
    let plain = BasicProperties::default();
    amqp.publish(&ingest, "notification.create", bare("n1"), plain.clone()).await;
    each_hears(&adas, &as_told("n1", &ada, 1), 1).await;
    let typed = plain.with_type("notification.created".into());
    amqp.publish("", &ingest, bare("n2"), typed).await;
    each_hears(&adas, &as_told("n2", &ada, 2), 2).await;
    heard_nothing(&place, &bob, &bobs).await;
}

#[tokio::test]
async fn a_cloudevent_is_told() {
    let (place, ada, adas, bob, bobs) = ada_and_bob().await;
    let ingest = place.broker().ingest_queue();
    let amqp = Amqp::connect(place.broker().url()).await;

    let structured = json!({
        "specversion": "1.0", "id": "e1", "source": "/shop", "type": "notification.create",
        "time": "2026-11-23T08:15:30Z", "datacontenttype": "application/json",
        "data": to(&ada, order_shipped("n1")),
    });
    let properties = BasicProperties::default()
        .with_content_type("application/cloudevents+json; charset=utf-8".into());
    amqp.publish("", &ingest, structured.to_string(), properties).await;
    each_hears(&adas, &as_told("n1", &ada, 1), 1).await;

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
    let binary = to(&ada, order_shipped("n2")).to_string();
    amqp.publish("", &ingest, binary, properties).await;
    each_hears(&adas, &as_told("n2", &ada, 2), 2).await;
    heard_nothing(&place, &bob, &bobs).await;
}
