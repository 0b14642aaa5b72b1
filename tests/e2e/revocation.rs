//! Tokens that hold no more although they have not ended: sessions on them end, and nobody gets in.

use std::time::Duration;

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::process::Belfry;
use belfry_tests::wait::until_true;
use serde_json::{Value, json};

use crate::setup::{Setup, User, key, ready, signed_in};

on_both_setups!(
    sessions_end_and_tokens_hold_no_more_and_a_new_one_lets_in,
    only_who_may_revoke_does,
    a_revocation_is_remembered_over_a_restart,
    scopes_are_needed_where_they_are_set,
);

fn operator(belfry: &Belfry) -> Http {
    belfry.http().bearer(key().token("operator").scope("tokens:revoke").sign())
}

fn path(user: &User) -> String {
    format!("/v1/users/{}/revocations", user.id())
}

/// A token that was issued a while ago.
fn old_token(user: &User) -> String {
    key().token(user.id()).issued_ago(Duration::from_mins(5)).sign()
}

/// The device is told why its session ends, and is out.
async fn is_ended(device: &Device) {
    assert_eq!(device.expect("exception").await["code"], "token_revoked");
    device.disconnected().await;
}

async fn sessions_end_and_tokens_hold_no_more_and_a_new_one_lets_in(setup: Setup) {
    let place = setup.shared().await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let old = old_token(&ada);
    let devices = [
        signed_in(ada.node().token(&old).reconnection(false)).await,
        signed_in(ada.python().token(&old).reconnection(false).transports(["polling"])).await,
    ];
    let (fresh, other) = (signed_in(ada.node()).await, signed_in(bob.node()).await);

    let body = json!({ "issuedBefore": before_now(&place.notify(&ada, draft()).await, Duration::from_mins(1)) });
    let kept = operator(&place.belfry).post(&path(&ada), &body).await.expect(200);
    assert_eq!(kept, json!({ "userId": ada.id(), "issuedBefore": body["issuedBefore"] }));

    for device in &devices {
        is_ended(device).await;
    }
    let refused = ada.node().token(&old).start();
    assert_eq!(refused.refused().await, "token_revoked");
    let answer = place.belfry.http().bearer(&*old).get("/v1/notifications").await;
    assert_eq!(answer.expect(401)["code"], "token_revoked");

    // A token that was issued since, and everybody else's, go on.
    place.until_told(&ada, [&fresh], "n2").await;
    place.until_told(&bob, [&other], "n3").await;
    signed_in(ada.node()).await;
}

fn draft() -> Value {
    json!({ "id": "n1", "title": "What time is it?" })
}

fn before_now(notification: &Value, by: Duration) -> String {
    let made = notification["createdAt"].as_str().unwrap();
    let made: chrono::DateTime<chrono::Utc> = made.parse().unwrap();
    (made - by).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

async fn only_who_may_revoke_does(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    let body = json!({});
    let belfry = &place.belfry;
    for http in [ada.http(), place.service()] {
        let refused = http.post(&path(&ada), &body).await;
        assert_eq!(refused.expect(403)["code"], "scope_missing");
        let asked = refused.header("www-authenticate").unwrap();
        assert!(asked.contains("scope=\"tokens:revoke\""), "{asked}");
    }
    assert_eq!(belfry.http().post(&path(&ada), &body).await.status, 401);
    for (path, body, code) in [
        ("/v1/users/a%20b/revocations", json!({}), "id_invalid"),
        ("/v1/users/ada/revocations", json!({ "issuedBefore": "yesterday" }), "body_invalid"),
        ("/v1/users/ada/revocations", json!([]), "body_invalid"),
    ] {
        assert_eq!(operator(belfry).post(path, &body).await.json()["code"], code, "{path} {body}");
    }
    signed_in(ada.node()).await;
}

async fn a_revocation_is_remembered_over_a_restart(setup: Setup) {
    let mut place = setup.own().await;
    let ada = place.user("ada");
    let old = old_token(&ada);
    operator(&place.belfry).post(&path(&ada), &json!({})).await.expect(200);
    place.belfry.kill();
    place.belfry.restart().await;
    assert_eq!(ada.node().token(&old).start().refused().await, "token_revoked");
    // The second in which it was revoked goes by, as tokens tell their second only.
    until_true("a new token lets in", async || {
        ada.http().get("/v1/notifications").await.status == 200
    })
    .await;
}

async fn scopes_are_needed_where_they_are_set(setup: Setup) {
    let place = setup
        .own_with(|belfry| {
            belfry
                .setting("auth.scopes.read", "inbox:read")
                .setting("auth.scopes.change", "inbox:change")
        })
        .await;
    let ada = place.user("ada");
    place.notify(&ada, draft()).await;
    let with = |scopes: &str| key().token(ada.id()).scope(scopes).sign();

    assert_eq!(ada.node().start().refused().await, "scope_missing");
    let answer = ada.http().get("/v1/notifications").await;
    assert_eq!(answer.expect(403)["code"], "scope_missing");

    let reader = signed_in(ada.node().token(&with("inbox:read"))).await;
    assert_eq!(reader.call("notification:list", json!({})).await["status"], "ok");
    for (event, payload) in [
        ("notification:mark_read", json!("n1")),
        ("notification:mark_all_read", Value::Null),
        ("notification:delete", json!("n1")),
    ] {
        assert_eq!(reader.call(event, payload).await["code"], "scope_missing", "{event}");
    }
    let http = place.belfry.http().bearer(with("inbox:read"));
    for answer in [
        http.patch("/v1/notifications/n1/read").await,
        http.patch("/v1/notifications/read-all").await,
        http.delete("/v1/notifications/n1").await,
    ] {
        assert_eq!(answer.expect(403)["code"], "scope_missing");
    }
    let refreshed = reader.call("auth:refresh", json!({ "token": ada.token() })).await;
    assert_eq!(refreshed["code"], "scope_missing");

    let changer = signed_in(ada.node().token(&with("inbox:read inbox:change"))).await;
    assert_eq!(changer.call("notification:mark_read", json!("n1")).await["status"], "ok");
}

/// Every node learns of it, whichever is told.
#[tokio::test]
async fn every_node_ends_what_was_revoked_at_one_of_them() {
    let ground = Setup::Servers.ground().await;
    let start = async |name: &str| {
        ground.broker().will_delete_queue(ground.broker().node_queue(name));
        ready(ground.belfry().setting("node.name", name).start().await).await
    };
    let (one, other) = (start("one").await, start("other").await);
    let ada = User::new("ada", &one);
    let old = old_token(&ada);
    let here = signed_in(ada.node().token(&old).reconnection(false)).await;
    let there = signed_in(ada.at(&other).node().token(&old).reconnection(false)).await;
    operator(&one).post(&path(&ada), &json!({})).await.expect(200);
    is_ended(&here).await;
    is_ended(&there).await;
    for node in [&one, &other] {
        assert_eq!(ada.at(node).node().token(&old).start().refused().await, "token_revoked");
    }
}

/// A service may ask for it by the broker too, whoever keeps the inboxes.
#[tokio::test]
async fn a_service_revokes_by_the_broker_in_either_mode() {
    for mode in ["store", "forward"] {
        let place =
            Setup::Servers.own_with(|belfry| belfry.setting("amqp.ingest.mode", mode)).await;
        let ada = place.user("ada");
        let device = signed_in(ada.node().token(&old_token(&ada)).reconnection(false)).await;
        let body = json!({ "pattern": "user.revoke_tokens", "data": { "userId": ada.id() } });
        let amqp = Amqp::connect(place.broker().url()).await;
        amqp.send(&place.broker().ingest_queue(), &body).await;
        is_ended(&device).await;
    }
}
