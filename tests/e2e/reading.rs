//! Reading, deleting and listing: a change by one client reaches all devices of the user.

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::Device;
use belfry_tests::http::{Http, send};
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, User, signed_in};

on_both_setups!(
    reads_in_every_payload_form_reach_the_other_devices,
    reads_by_rest_reach_all_devices,
    mark_all_read_works_by_socket_and_by_rest,
    second_read_changes_nothing,
    deletion_reaches_all_devices,
    inbox_pages_are_the_same_by_socket_and_by_rest,
    invalid_message_is_rejected_in_its_ack,
    invalid_message_without_an_ack_causes_an_exception,
    device_cannot_change_another_users_notification,
);

/// Creates notifications `n1`, `n2` … for the user.
async fn fill(deployment: &Deployment, user: &User, count: usize) {
    for n in 1..=count {
        deployment
            .notify(user, json!({ "id": format!("n{n}"), "title": format!("No. {n}") }))
            .await;
    }
}

/// Checks the next events of each device: these notifications were marked as read, and this is the count.
async fn assert_each_receives_read(devices: &[Device], ids: &[&str], count: u64, revision: u64) {
    for device in devices {
        let read = device.expect("notification:marked_read").await;
        let read_at = read["readAt"].as_str().unwrap();
        assert!(read_at.ends_with('Z') && read_at.len() == 24, "{read_at}");
        let mut expected = json!({ "ids": ids, "readAt": read_at, "revision": revision });
        if let [only] = ids {
            expected["notificationId"] = json!(only);
        }
        assert_eq!(read, expected);
        let expected = json!({ "count": count, "revision": revision });
        assert_eq!(device.expect("notification:unread_count").await, expected);
    }
}

/// The ack of a successful message.
fn ok(data: Value) -> Value {
    let mut answer = json!({ "status": "ok" });
    answer["data"] = data;
    answer
}

/// The payload of an unread count.
fn count_at(count: u64, revision: u64) -> Value {
    json!({ "count": count, "revision": revision })
}

async fn reads_in_every_payload_form_reach_the_other_devices(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    fill(&deployment, &ada, 7).await;
    let [reader, other] = ada.two_devices().await;
    let devices = [reader, other];

    for (n, (event, payload)) in (1..).zip([
        ("notification:mark_read", json!({ "id": "n1" })),
        ("notification:read", json!({ "notificationId": "n2" })),
        ("markAsRead", json!("n3")),
        ("notification:mark_read", json!("n4")),
        ("notification:read", json!({ "id": "n5" })),
    ]) {
        let answer = devices[0].call(event, payload).await;
        assert_eq!(answer, ok(count_at(7 - n, 7 + n)), "{event}");
        assert_each_receives_read(&devices, &[&format!("n{n}")], 7 - n, 7 + n).await;
    }
    let answer = devices[1].call("notification:mark_read", json!({ "ids": ["n6", "n7"] })).await;
    assert_eq!(answer, ok(count_at(0, 13)));
    assert_each_receives_read(&devices, &["n6", "n7"], 0, 13).await;

    let stored = deployment.stored(&ada, "n6").await;
    assert_eq!((&stored["isRead"], &stored["revision"]), (&json!(true), &json!(13)));
    assert!(stored["readAt"].is_string(), "{stored}");
}

async fn reads_by_rest_reach_all_devices(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    fill(&deployment, &ada, 4).await;
    let devices = ada.two_devices().await;
    let http = ada.http();

    for (n, method) in (1..).zip([Method::PATCH, Method::POST, Method::PUT]) {
        let path = format!("/v1/notifications/n{n}/read");
        let answer = send(http.request(method, &path)).await;
        assert!((200..300).contains(&answer.status), "{answer:#?}");
        assert_each_receives_read(&devices, &[&format!("n{n}")], 4 - n, 4 + n).await;
    }
    assert_eq!(deployment.stored(&ada, "n3").await["isRead"], true);
    assert_eq!(deployment.stored(&ada, "n4").await["isRead"], false);
}

async fn mark_all_read_works_by_socket_and_by_rest(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let devices = ada.two_devices().await;
    let http = ada.http();
    let mut revision = 0;
    let mut fill_two = async || {
        for _ in 0..2 {
            deployment.notify(&ada, json!({ "title": "Read me" })).await;
        }
        // The two notifications, and the change that marks them as read.
        revision += 3;
        revision
    };
    let each_receives_all_read = async |revision: u64| {
        for device in &devices {
            let read = device.expect("notification:marked_read").await;
            let expected = json!({ "all": true, "readAt": read["readAt"], "revision": revision });
            assert_eq!(read, expected);
            while device.expect("notification:unread_count").await != count_at(0, revision) {}
        }
    };

    let revision = fill_two().await;
    let answer = devices[0].call("notification:mark_all_read", json!({})).await;
    assert_eq!(answer, ok(count_at(0, revision)));
    each_receives_all_read(revision).await;
    for method in [Method::PATCH, Method::POST, Method::PUT] {
        let revision = fill_two().await;
        let answer = send(http.request(method, "/v1/notifications/read-all")).await;
        assert!((200..300).contains(&answer.status), "{answer:#?}");
        each_receives_all_read(revision).await;
    }
    assert_eq!(http.get("/v1/notifications/unread-count").await.expect(200)["count"], 0);
}

async fn second_read_changes_nothing(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    fill(&deployment, &ada, 2).await;
    let devices = [signed_in(ada.node()).await];

    for _ in 0..2 {
        let answer = devices[0].call("notification:mark_read", json!({ "id": "n1" })).await;
        assert_eq!(answer, ok(count_at(1, 3)));
    }
    let unknown = devices[0].call("notification:mark_read", json!({ "id": "n9" })).await;
    assert_eq!(unknown, ok(count_at(1, 3)));
    let count = devices[0].call("notification:unread_count", Value::Null).await;
    assert_eq!(count, ok(count_at(1, 3)));

    deployment.until_delivered(&ada, &devices, "last").await;
    assert_eq!(devices[0].events("notification:marked_read").len(), 1);
}

async fn deletion_reaches_all_devices(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    fill(&deployment, &ada, 3).await;
    let devices = ada.two_devices().await;

    let answer = devices[0].call("notification:delete", json!({ "id": "n1" })).await;
    assert_eq!(answer, ok(count_at(2, 4)));
    let answer = ada.http().delete("/v1/notifications/n2").await;
    assert!((200..300).contains(&answer.status), "{answer:#?}");

    for device in &devices {
        for (id, count, revision) in [("n1", 2, 4), ("n2", 1, 5)] {
            let deleted = device.expect("notification:deleted").await;
            let expected = json!({ "ids": [id], "notificationId": id, "revision": revision });
            assert_eq!(deleted, expected);
            let unread = device.expect("notification:unread_count").await;
            assert_eq!(unread, count_at(count, revision));
        }
    }
    for id in ["n1", "n2"] {
        ada.http().get(&format!("/v1/notifications/{id}")).await.expect(404);
        ada.http().delete(&format!("/v1/notifications/{id}")).await.expect(404);
    }
    let list = ada.http().get("/v1/notifications").await.expect(200);
    assert_eq!(ids(&list), ["n3"]);
}

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap_or_else(|| panic!("{page} is no page"));
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

/// Requests a page of the list by REST and by socket, checks that both are the same, and returns it.
async fn page(device: &Device, http: &Http, filter: &Value) -> Value {
    // No value needs URL encoding.
    let query: Vec<_> = filter
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_string().replace('"', "")))
        .collect();
    let by_rest = http.get(&format!("/v1/notifications?{}", query.join("&"))).await;
    let by_socket = device.call("notification:list", filter.clone()).await;
    assert_eq!(by_socket, ok(by_rest.expect(200)), "{filter}");
    by_socket["data"].clone()
}

async fn inbox_pages_are_the_same_by_socket_and_by_rest(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    fill(&deployment, &ada, 5).await;
    deployment.notify(&ada, json!({ "id": "n6", "title": "No. 6", "type": "order.shipped" })).await;
    let (device, http) = (signed_in(ada.python()).await, ada.http());
    device.call("notification:mark_read", json!({ "ids": ["n2", "n5"] })).await;

    let first = page(&device, &http, &json!({ "limit": 2 })).await;
    assert_eq!(ids(&first), ["n6", "n5"]);
    assert_eq!((&first["unreadCount"], &first["revision"]), (&json!(4), &json!(7)));
    assert_eq!(first["items"][1], deployment.stored(&ada, "n5").await);
    let epoch = device.events("notification:sync")[0]["epoch"].clone();
    assert_eq!(first["epoch"], epoch);

    // New notifications do not shift later pages.
    deployment.notify(&ada, json!({ "id": "n7", "title": "No. 7" })).await;
    let second = page(&device, &http, &json!({ "limit": 2, "cursor": first["nextCursor"] })).await;
    assert_eq!(ids(&second), ["n4", "n3"]);
    let third = page(&device, &http, &json!({ "limit": 2, "cursor": second["nextCursor"] })).await;
    assert_eq!(ids(&third), ["n2", "n1"]);
    assert_eq!(third["nextCursor"], Value::Null);

    let unread = page(&device, &http, &json!({ "unread": true })).await;
    assert_eq!(ids(&unread), ["n7", "n6", "n4", "n3", "n1"]);
    let read = page(&device, &http, &json!({ "unread": false, "limit": 50 })).await;
    assert_eq!(ids(&read), ["n5", "n2"]);
    let orders = page(&device, &http, &json!({ "type": "order.shipped" })).await;
    assert_eq!(ids(&orders), ["n6"]);
}

async fn invalid_message_is_rejected_in_its_ack(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    for device in ada.two_devices().await {
        for (event, payload, code) in [
            ("notification:delete", json!({ "id": "n1" }), "not_found"),
            ("notification:delete", json!({ "ids": ["n1", "n2"] }), "payload_invalid"),
            ("notification:mark_read", json!({}), "payload_invalid"),
            ("notification:mark_read", Value::Null, "payload_invalid"),
            ("notification:mark_read", json!({ "id": { "$ne": null } }), "payload_invalid"),
            ("notification:mark_read", json!({ "id": "a b" }), "payload_invalid"),
            ("notification:list", json!({ "cursor": "1" }), "payload_invalid"),
            ("notification:list", json!({ "limit": "many" }), "payload_invalid"),
            ("notification:new", json!({ "id": "n1", "title": "Forged" }), "event_unknown"),
            ("join", json!({ "room": "user:bob" }), "event_unknown"),
        ] {
            let answer = device.call(event, payload.clone()).await;
            assert_eq!(answer["status"], "error", "{event} {payload}: {answer}");
            assert_eq!(answer["code"], code, "{event} {payload}: {answer}");
            assert_ne!(answer["message"].as_str().unwrap(), "", "{event} {payload}");
        }
        assert_eq!(device.events("exception"), Vec::<Value>::new());
    }
}

async fn invalid_message_without_an_ack_causes_an_exception(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;

    device.emit("notification:unread_count", Value::Null);
    device.emit("notification:delete", json!({ "id": "n1" }));

    let exception = device.expect("exception").await;
    assert_eq!((&exception["status"], &exception["code"]), (&json!("error"), &json!("not_found")));
    assert!(exception["message"].is_string(), "{exception}");
    // The connection still works.
    let answer = device.call("notification:unread_count", Value::Null).await;
    assert_eq!(answer, ok(count_at(0, 0)));
}

async fn device_cannot_change_another_users_notification(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, eve) = (deployment.user("ada"), deployment.user("eve"));
    fill(&deployment, &ada, 1).await;
    let (adas, eves) = tokio::join!(signed_in(ada.node()), signed_in(eve.node()));

    let room = format!("user:{}", ada.id());
    for event in ["mark_read", "delete", "mark_all_read", "list", "unread_count", "sync"] {
        let fields = [("userId", ada.id()), ("user", ada.id()), ("room", &room)];
        for (key, value) in fields {
            let answer = eves.call(&format!("notification:{event}"), json!({ key: value })).await;
            assert_eq!(answer["code"], "payload_invalid", "{event} {key}: {answer}");
        }
    }
    let n1 = json!({ "id": "n1", "userId": eve.id() });
    assert_eq!(eves.call("notification:mark_read", n1.clone()).await, ok(count_at(0, 0)));
    assert_eq!(eves.call("notification:delete", n1).await["code"], "not_found");
    assert_eq!(eves.call("notification:mark_all_read", json!({})).await, ok(count_at(0, 0)));
    let list = eves.call("notification:list", json!({})).await;
    assert_eq!(ids(&list["data"]), Vec::<&str>::new());
    let sync = json!({ "since": 0 });
    assert_eq!(eves.call("notification:sync", sync).await["data"]["missed"], 0);

    let adas = [adas];
    deployment.until_delivered(&ada, &adas, "last").await;
    assert_eq!(adas[0].events("notification:marked_read"), Vec::<Value>::new());
    assert_eq!(adas[0].events("notification:deleted"), Vec::<Value>::new());
    assert_eq!(eves.events("notification:new"), Vec::<Value>::new());
    assert_eq!(deployment.stored(&ada, "n1").await["isRead"], false);
}

#[tokio::test]
async fn reads_by_another_service_reach_all_devices() {
    let deployment = Setup::Servers.shared().await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    fill(&deployment, &ada, 6).await;
    fill(&deployment, &bob, 1).await;
    let (devices, bobs) = tokio::join!(ada.two_devices(), signed_in(bob.node()));
    let amqp = Amqp::connect(deployment.broker().url()).await;
    let publish = async |pattern: &str, mut data: Value| {
        data["userId"] = ada.id().into();
        let body = json!({ "pattern": pattern, "data": data });
        amqp.send(&deployment.broker().ingest_queue(), &body).await;
    };

    publish("notification.mark_read", json!({ "id": "n1" })).await;
    assert_each_receives_read(&devices, &["n1"], 5, 7).await;
    publish("notification.marked_read", json!({ "notificationId": "n2" })).await;
    assert_each_receives_read(&devices, &["n2"], 4, 8).await;
    publish(
        "notification.marked_read",
        json!({ "ids": ["n3", "n4"], "readAt": "2026-11-23T08:15:30Z" }),
    )
    .await;
    assert_each_receives_read(&devices, &["n3", "n4"], 2, 9).await;
    publish("notification.mark_all_read", json!({})).await;
    for device in &devices {
        let read = device.expect("notification:marked_read").await;
        assert_eq!((&read["all"], &read["revision"]), (&json!(true), &json!(10)));
        assert_eq!(device.expect("notification:unread_count").await, count_at(0, 10));
    }

    let bobs = [bobs];
    deployment.until_delivered(&bob, &bobs, "last").await;
    assert_eq!(bobs[0].events("notification:marked_read"), Vec::<Value>::new());
    assert_eq!(deployment.stored(&bob, "n1").await["isRead"], false);
}
