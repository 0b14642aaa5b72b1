//! Erasure: nothing of the user is left, all devices drop their list, and later notifications are delivered.

use belfry_tests::clients::Device;
use belfry_tests::http::{Http, send};
use belfry_tests::process::Belfry;
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, User, key, signed_in};

on_both_setups!(erased_inbox_disappears_from_all_devices, erasure_needs_its_scope);

fn operator(belfry: &Belfry) -> Http {
    belfry.http().bearer(key().token("operator").scope("users:erase").sign())
}

fn path(user: &User) -> String {
    format!("/v1/users/{}", user.id())
}

/// Waits for the `notification:sync` of an empty inbox, after which a device loads its list again, and for the
/// count. Returns the payload of the sync.
async fn expect_empty_inbox(device: &Device) -> Value {
    let sync = device.expect("notification:sync").await;
    assert_eq!(
        (&sync["recovered"], &sync["unreadCount"], &sync["missed"]),
        (&json!(false), &json!(0), &json!(0)),
    );
    let count = json!({ "count": 0, "revision": sync["revision"] });
    while device.expect("notification:unread_count").await != count {}
    sync
}

async fn erased_inbox_disappears_from_all_devices(setup: Setup) {
    let deployment = setup.own().await;
    // Only PostgreSQL and RabbitMQ allow a second node.
    let second = match setup {
        Setup::Servers => Some(deployment.backends.start().await),
        Setup::Embedded => None,
    };
    let ada = deployment.user("ada");
    let ada_on_second = second.as_ref().map_or_else(|| ada.clone(), |node| ada.at(node));
    let [one, two] = ada.two_devices().await;
    let three = signed_in(ada_on_second.node()).await;
    let offline = signed_in(ada.node().track(true)).await;
    let bob = deployment.user("bob");
    let bobs_device = signed_in(bob.node()).await;
    deployment.notify(&bob, json!({ "id": "n1", "title": "Stays" })).await;
    deployment.notify(&ada, json!({ "id": "n1", "title": "Goes" })).await;
    deployment.until_delivered(&ada, [&one, &two, &three, &offline], "n2").await;
    offline.disconnect();
    offline.disconnected().await;

    operator(&deployment.belfry).delete(&path(&ada)).await.expect(204);

    let mut revision = 0;
    for device in [&one, &two, &three] {
        let sync = expect_empty_inbox(device).await;
        assert_eq!(sync["revision"], 3);
        revision = sync["revision"].as_u64().unwrap();
    }
    for user in [&ada, &ada_on_second] {
        let page = user.http().get("/v1/notifications").await.expect(200);
        assert_eq!((&page["items"], &page["unreadCount"]), (&json!([]), &json!(0)), "{page}");
        assert_eq!(page["revision"], revision, "the page is as new as the sync");
    }
    operator(&deployment.belfry).delete(&path(&ada)).await.expect(204);

    let again = deployment.notify(&ada, json!({ "id": "n1", "title": "A new one" })).await;
    assert_eq!(again["revision"], revision + 1);
    for device in [&one, &two, &three] {
        while device.expect("notification:new").await != again {}
        let count = json!({ "count": 1, "revision": revision + 1 });
        while device.expect("notification:unread_count").await != count {}
    }
    offline.reconnect();
    let sync = offline.expect("notification:sync").await;
    assert_eq!((&sync["recovered"], &sync["unreadCount"]), (&json!(false), &json!(1)), "{sync}");
    let syncs = bobs_device.events("notification:sync").len();
    assert_eq!(syncs, 1, "the device of another user does not load its list again");
}

async fn erasure_needs_its_scope(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    deployment.notify(&ada, json!({ "id": "n1", "title": "Stays" })).await;
    for http in [ada.http(), deployment.service()] {
        let problem = http.delete(&path(&ada)).await.expect(403);
        assert_eq!(problem["code"], "scope_missing");
    }
    deployment.stored(&ada, "n1").await;
}

/// Creates a notification with an idempotency key.
async fn notify_with_key(deployment: &Deployment, user: &User, title: &str) {
    let draft = json!({ "userId": user.id(), "title": title });
    let request = deployment.service().request(Method::POST, "/v1/notifications").json(&draft);
    assert_eq!(send(request.header("idempotency-key", "order-7")).await.status, 201);
}

#[tokio::test]
async fn command_erases_a_user_and_prints_what_it_removed() {
    let deployment = Setup::Servers.own().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;
    deployment.notify(&ada, json!({ "id": "n1", "title": "Goes" })).await;
    notify_with_key(&deployment, &ada, "Goes too").await;
    while device.expect("notification:unread_count").await["revision"] != 2 {}

    let erased = deployment.belfry.run(&["users", "erase", "--user", ada.id()]).await;
    assert!(erased.status.success(), "{}", erased.err);
    assert!(erased.out.starts_with("erased 2 notifications"), "{}", erased.out);
    assert!(erased.out.contains("1 idempotency key and"), "{}", erased.out);
    assert!(erased.err.contains("user erased"), "the log: {}", erased.err);
    assert!(!erased.err.contains("Goes"), "{}", erased.err);
    expect_empty_inbox(&device).await;

    let again = deployment.belfry.run(&["users", "erase", "--user", ada.id()]).await;
    assert!(again.status.success(), "{}", again.err);
    assert_eq!(again.out.trim(), "there is nothing to erase");

    let invalid = deployment.belfry.run(&["users", "erase", "--user", "a b"]).await;
    assert_eq!(invalid.status.code(), Some(1));
    assert!(invalid.err.contains("--user"), "{}", invalid.err);
}

#[tokio::test]
async fn command_fails_while_the_store_is_unreachable_or_in_use() {
    let unreachable = Belfry::builder().database("postgres://ada@127.0.0.1:1/belfry");
    let finished = unreachable.arg("users").arg("erase").arg("--user").arg("ada").finish().await;
    assert_eq!((finished.status.code(), finished.out.as_str()), (Some(1), ""));
    assert!(finished.err.contains("cannot use the database"), "{}", finished.err);

    let deployment = Setup::Embedded.own().await;
    let in_use = deployment.belfry.run(&["users", "erase", "--user", "ada"]).await;
    assert_eq!((in_use.status.code(), in_use.out.as_str()), (Some(1), ""));
    assert!(in_use.err.contains("in use"), "{}", in_use.err);
}
