//! Retention and expiry: notifications disappear from the inbox and all devices, and counts stay exact.

use std::time::Duration;

use belfry_tests::clients::Device;
use belfry_tests::http::{Http, send};
use belfry_tests::wait::until_true;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, User, signed_in};

on_both_setups!(
    expired_notification_disappears_from_all_devices,
    old_notifications_are_deleted_if_so_configured,
    counts_stay_exact_when_many_notifications_expire_at_once,
    device_offline_longer_than_tombstones_are_kept_is_not_recovered,
    idempotency_key_can_be_reused_after_its_retention,
);

/// A `belfry` that applies retention every 100 ms.
async fn frequently_cleaned(setup: Setup, settings: &[(&str, &str)]) -> Deployment {
    setup
        .own_with(|builder| {
            let builder = builder.setting("retention.every", "100ms");
            settings.iter().fold(builder, |builder, (path, value)| builder.setting(path, value))
        })
        .await
}

/// The instant this long after the notification was created, by the server's clock.
fn after(notification: &Value, time: Duration) -> String {
    let created: DateTime<Utc> = notification["createdAt"].as_str().unwrap().parse().unwrap();
    (created + time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

async fn expired_notification_disappears_from_all_devices(setup: Setup) {
    let deployment = frequently_cleaned(setup, &[]).await;
    let ada = deployment.user("ada");
    let devices = ada.two_devices().await;
    let offline = signed_in(ada.node().track(true)).await;
    let permanent = deployment.notify(&ada, json!({ "id": "n1", "title": "Here to stay" })).await;
    let expires_at = after(&permanent, Duration::from_secs(5));
    let body = json!({ "id": "n2", "title": "Until tonight", "expiresAt": expires_at });
    let expiring = deployment.notify(&ada, body).await;
    assert_eq!(expiring["expiresAt"], expires_at);
    while offline.expect("notification:unread_count").await["revision"] != 2 {}
    offline.disconnect();
    offline.disconnected().await;

    for device in &devices {
        let deleted = device.expect("notification:deleted").await;
        assert_eq!(deleted, json!({ "ids": ["n2"], "notificationId": "n2", "revision": 3 }));
        while device.expect("notification:unread_count").await["revision"] != 3 {}
        let counts = device.events("notification:unread_count");
        assert_eq!(counts.last().unwrap(), &json!({ "count": 1, "revision": 3 }));
    }
    let http = ada.http();
    http.get("/v1/notifications/n2").await.expect(404);
    assert_eq!(http.get("/v1/notifications/unread-count").await.expect(200)["count"], 1);
    let page = http.get("/v1/notifications").await.expect(200);
    let ids: Vec<_> = page["items"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["n1"]);

    offline.reconnect();
    let sync = offline.expect("notification:sync").await;
    assert_eq!((&sync["recovered"], &sync["unreadCount"]), (&json!(true), &json!(1)));
    assert_eq!(offline.expect("notification:deleted").await["ids"], json!(["n2"]));
}

async fn old_notifications_are_deleted_if_so_configured(setup: Setup) {
    let deployment = frequently_cleaned(setup, &[("retention.notifications", "1s")]).await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;
    for n in 1..=3 {
        deployment.notify(&ada, json!({ "id": format!("n{n}"), "title": "Soon old" })).await;
    }
    ada.http().patch("/v1/notifications/n2/read").await.expect(200);
    let mut deleted = Vec::new();
    while deleted.len() < 3 {
        let ids = device.expect("notification:deleted").await["ids"].clone();
        deleted.extend(ids.as_array().unwrap().clone());
    }
    assert_eq!(deleted, ["n1", "n2", "n3"]);
    let count = ada.http().get("/v1/notifications/unread-count").await.expect(200);
    assert_eq!(count["count"], 0);
}

async fn counts_stay_exact_when_many_notifications_expire_at_once(setup: Setup) {
    const PER_USER: usize = 30;
    let deployment = frequently_cleaned(setup, &[]).await;
    let users: Vec<_> = (0..20).map(|_| deployment.user("crowd")).collect();
    let devices = join_all(users.iter().map(|user| signed_in(user.node()))).await;
    let first =
        deployment.notify(&users[0], json!({ "id": "clock", "title": "What time is it?" })).await;
    // Long enough for all requests below, even on a busy machine.
    let expires_at = after(&first, Duration::from_secs(25));
    let ids: Vec<_> = users.iter().map(User::id).collect();
    for n in 0..PER_USER {
        let body = json!({ "userIds": ids, "title": format!("Sale {n}"), "expiresAt": expires_at });
        deployment.service().post("/v1/notifications", &body).await.expect(201);
    }
    // Before they expire, users read some of them, and each user gets a notification without an expiry.
    join_all(users.iter().map(async |user| {
        let http = user.http();
        let page = http.get("/v1/notifications?limit=10").await.expect(200);
        for one in page["items"].as_array().unwrap() {
            let id = one["id"].as_str().unwrap();
            http.patch(&format!("/v1/notifications/{id}/read")).await;
        }
        deployment.notify(user, json!({ "id": "stays", "title": "Not for sale" })).await;
    }))
    .await;
    for (n, (user, device)) in users.iter().zip(&devices).enumerate() {
        // The first user also has `clock`.
        let remaining = 1 + usize::from(n == 0);
        until_true("expired notifications are deleted", async || {
            count_listed(&user.http()).await == remaining
        })
        .await;
        let unread = user.http().get("/v1/notifications/unread-count").await.expect(200);
        assert_eq!(unread["count"], remaining);
        until_device_agrees(device, remaining).await;
    }
}

/// The number of notifications in the inbox.
async fn count_listed(http: &Http) -> usize {
    let page = http.get("/v1/notifications?limit=100").await.expect(200);
    page["items"].as_array().unwrap().len()
}

/// Waits until the device has received this count, and the device's own list has as many notifications.
async fn until_device_agrees(device: &Device, count: usize) {
    until_true("a device has the final state", async || {
        let new = device.events("notification:new").len();
        let deleted = device.events("notification:deleted");
        let deleted: usize =
            deleted.iter().map(|event| event["ids"].as_array().unwrap().len()).sum();
        let counts = device.events("notification:unread_count");
        new - deleted == count && counts.last().is_some_and(|event| event["count"] == count)
    })
    .await;
    let counts = device.events("notification:unread_count");
    let are_in_order = counts.is_sorted_by_key(|event| event["revision"].as_u64());
    assert!(are_in_order, "a stale count after a newer one: {}", device.transcript());
}

async fn device_offline_longer_than_tombstones_are_kept_is_not_recovered(setup: Setup) {
    let deployment = frequently_cleaned(setup, &[("retention.deleted", "200ms")]).await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    deployment.notify(&ada, json!({ "id": "n1", "title": "Came and went" })).await;
    deployment.until_delivered(&ada, [&device], "n2").await;
    device.disconnect();
    device.disconnected().await;

    ada.http().delete("/v1/notifications/n1").await.expect(204);
    // Until the tombstone is removed, no notification with its id can be created.
    let again = json!({ "userId": ada.id(), "id": "n1", "title": "Came and went" });
    until_true("the tombstone is removed", async || {
        deployment.service().post("/v1/notifications", &again).await.status == 201
    })
    .await;

    device.reconnect();
    let sync = device.expect("notification:sync").await;
    let expected = json!({ "recovered": false, "missed": 0, "revision": 4, "unreadCount": 2 });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&sync[name], value, "{sync}");
    }
}

async fn idempotency_key_can_be_reused_after_its_retention(setup: Setup) {
    let deployment = frequently_cleaned(setup, &[("retention.idempotency_keys", "2s")]).await;
    let ada = deployment.user("ada");
    let post = async |title: &str| {
        let draft = json!({ "userId": ada.id(), "title": title });
        let request = deployment.service().request(Method::POST, "/v1/notifications").json(&draft);
        send(request.header("idempotency-key", "order-7")).await.status
    };
    assert_eq!(post("Once").await, 201);
    assert_eq!(post("Something else").await, 422);
    until_true("the key is free again", async || post("Something else").await == 201).await;
    assert_eq!(count_listed(&ada.http()).await, 2);
}
