//! What has had its time disappears: from the inbox and from every device, and counts stay exact.

use std::time::Duration;

use belfry_tests::clients::Device;
use belfry_tests::http::{Http, send};
use belfry_tests::wait::until_true;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Place, Setup, User, signed_in};

on_both_setups!(
    what_expires_disappears_from_every_device,
    what_grows_old_disappears_too_where_that_is_set,
    many_that_expire_at_once_leave_every_count_exact,
    a_device_that_was_away_longer_than_deletions_are_remembered_starts_over,
    an_idempotency_key_is_forgotten_in_the_end,
);

/// A `belfry` that looks again and again for what has had its time.
async fn watchful(setup: Setup, settings: &[(&str, &str)]) -> Place {
    setup
        .own_with(|builder| {
            let builder = builder.setting("retention.every", "100ms");
            settings.iter().fold(builder, |builder, (path, value)| builder.setting(path, value))
        })
        .await
}

/// The instant so long after the notification was made, by the clock of who made it.
fn after(notification: &Value, time: Duration) -> String {
    let made: DateTime<Utc> = notification["createdAt"].as_str().unwrap().parse().unwrap();
    (made + time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

async fn what_expires_disappears_from_every_device(setup: Setup) {
    let place = watchful(setup, &[]).await;
    let ada = place.user("ada");
    let devices = ada.two_devices().await;
    let away = signed_in(ada.node().track(true)).await;
    let stays = place.notify(&ada, json!({ "id": "n1", "title": "Here to stay" })).await;
    let end = after(&stays, Duration::from_secs(5));
    let body = json!({ "id": "n2", "title": "Until tonight", "expiresAt": end });
    let passing = place.notify(&ada, body).await;
    assert_eq!(passing["expiresAt"], end);
    while away.expect("notification:unread_count").await["revision"] != 2 {}
    away.disconnect();
    away.disconnected().await;

    for device in &devices {
        let gone = device.expect("notification:deleted").await;
        assert_eq!(gone, json!({ "ids": ["n2"], "revision": 3 }));
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

    away.reconnect();
    let sync = away.expect("notification:sync").await;
    assert_eq!((&sync["recovered"], &sync["unreadCount"]), (&json!(true), &json!(1)));
    assert_eq!(away.expect("notification:deleted").await["ids"], json!(["n2"]));
}

async fn what_grows_old_disappears_too_where_that_is_set(setup: Setup) {
    let place = watchful(setup, &[("retention.notifications", "1s")]).await;
    let ada = place.user("ada");
    let device = signed_in(ada.node()).await;
    for n in 1..=3 {
        place.notify(&ada, json!({ "id": format!("n{n}"), "title": "Soon old" })).await;
    }
    ada.http().patch("/v1/notifications/n2/read").await.expect(200);
    let mut gone = Vec::new();
    while gone.len() < 3 {
        let ids = device.expect("notification:deleted").await["ids"].clone();
        gone.extend(ids.as_array().unwrap().clone());
    }
    assert_eq!(gone, ["n1", "n2", "n3"]);
    let count = ada.http().get("/v1/notifications/unread-count").await.expect(200);
    assert_eq!(count["count"], 0);
}

async fn many_that_expire_at_once_leave_every_count_exact(setup: Setup) {
    const EACH: usize = 30;
    let place = watchful(setup, &[]).await;
    let users: Vec<_> = (0..20).map(|_| place.user("crowd")).collect();
    let devices = join_all(users.iter().map(|user| signed_in(user.node()))).await;
    let first =
        place.notify(&users[0], json!({ "id": "clock", "title": "What time is it?" })).await;
    let end = after(&first, Duration::from_secs(10));
    let ids: Vec<_> = users.iter().map(User::id).collect();
    for n in 0..EACH {
        let body = json!({ "userIds": ids, "title": format!("Sale {n}"), "expiresAt": end });
        place.service().post("/v1/notifications", &body).await.expect(201);
    }
    // Meanwhile users read some of them, and others come that stay.
    join_all(users.iter().map(async |user| {
        let http = user.http();
        let page = http.get("/v1/notifications?limit=10").await.expect(200);
        for one in page["items"].as_array().unwrap() {
            let id = one["id"].as_str().unwrap();
            http.patch(&format!("/v1/notifications/{id}/read")).await;
        }
        place.notify(user, json!({ "id": "stays", "title": "Not for sale" })).await;
    }))
    .await;
    for (n, (user, device)) in users.iter().zip(&devices).enumerate() {
        // The first one has got the clock besides.
        let stay = 1 + usize::from(n == 0);
        until_true("what was for sale is gone", async || listed(&user.http()).await == stay).await;
        let state = user.http().get("/v1/notifications/unread-count").await.expect(200);
        assert_eq!(state["count"], stay);
        agrees(device, stay).await;
    }
}

/// How many notifications are in the inbox.
async fn listed(http: &Http) -> usize {
    let page = http.get("/v1/notifications?limit=100").await.expect(200);
    page["items"].as_array().unwrap().len()
}

/// Waits until the device has been told of a count, and its own list has as many.
async fn agrees(device: &Device, count: usize) {
    until_true("a device knows what is left", async || {
        let new = device.events("notification:new").len();
        let deleted = device.events("notification:deleted");
        let gone: usize = deleted.iter().map(|one| one["ids"].as_array().unwrap().len()).sum();
        let counts = device.events("notification:unread_count");
        new - gone == count && counts.last().is_some_and(|one| one["count"] == count)
    })
    .await;
    let counts = device.events("notification:unread_count");
    assert!(counts.is_sorted_by_key(|one| one["revision"].as_u64()), "{}", device.story());
}

async fn a_device_that_was_away_longer_than_deletions_are_remembered_starts_over(setup: Setup) {
    let place = watchful(setup, &[("retention.deleted", "200ms")]).await;
    let ada = place.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    place.notify(&ada, json!({ "id": "n1", "title": "Came and went" })).await;
    place.until_told(&ada, [&device], "n2").await;
    device.disconnect();
    device.disconnected().await;

    ada.http().delete("/v1/notifications/n1").await.expect(204);
    // As long as it is remembered, it is not made again.
    let again = json!({ "userId": ada.id(), "id": "n1", "title": "Came and went" });
    until_true("the deletion is forgotten", async || {
        place.service().post("/v1/notifications", &again).await.status == 201
    })
    .await;

    device.reconnect();
    let sync = device.expect("notification:sync").await;
    let expected = json!({ "recovered": false, "missed": 0, "revision": 4, "unreadCount": 2 });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&sync[name], value, "{sync}");
    }
}

async fn an_idempotency_key_is_forgotten_in_the_end(setup: Setup) {
    let place = watchful(setup, &[("retention.idempotency_keys", "2s")]).await;
    let ada = place.user("ada");
    let post = async |title: &str| {
        let draft = json!({ "userId": ada.id(), "title": title });
        let request = place.service().request(Method::POST, "/v1/notifications").json(&draft);
        send(request.header("idempotency-key", "order-7")).await.status
    };
    assert_eq!(post("Once").await, 201);
    assert_eq!(post("Something else").await, 422);
    until_true("the key is free again", async || post("Something else").await == 201).await;
    assert_eq!(listed(&ada.http()).await, 2);
}
