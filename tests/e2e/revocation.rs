//! Revocation: sessions of revoked tokens end, and the tokens are rejected before they expire.

use std::time::Duration;

use belfry_tests::amqp::{Amqp, Message};
use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::process::{Belfry, Builder};
use belfry_tests::wait::{until, until_true};
use serde_json::{Value, json};

use crate::setup::{Setup, User, key, ready, signed_in, signed_in_without_count};

on_both_setups!(
    revocation_ends_sessions_and_rejects_tokens_until_a_new_one,
    revoked_token_is_rejected_when_the_request_returns,
    token_of_an_issuer_whose_clock_is_ahead_is_revoked,
    revocation_needs_its_scope,
    revocation_survives_a_restart,
    configured_scopes_are_required,
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

/// Waits until the device is disconnected because its token is revoked.
async fn assert_ended(device: &Device) {
    assert_eq!(device.expect("exception").await["code"], "token_revoked");
    device.disconnected().await;
}

async fn revocation_ends_sessions_and_rejects_tokens_until_a_new_one(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    let old = old_token(&ada);
    let devices = [
        signed_in(ada.node().token(&old).reconnection(false)).await,
        signed_in(ada.python().token(&old).reconnection(false).transports(["polling"])).await,
    ];
    let (fresh, other) = (signed_in(ada.node()).await, signed_in(bob.node()).await);

    let notification = deployment.notify(&ada, draft()).await;
    let body = json!({ "issuedBefore": before(&notification, Duration::from_mins(1)) });
    let revocation = operator(&deployment.belfry).post(&path(&ada), &body).await.expect(200);
    assert_eq!(revocation, json!({ "userId": ada.id(), "issuedBefore": body["issuedBefore"] }));

    for device in &devices {
        assert_ended(device).await;
    }
    let refused = ada.node().token(&old).start();
    assert_eq!(refused.refused().await, "token_revoked");
    let answer = deployment.belfry.http().bearer(&*old).get("/v1/notifications").await;
    assert_eq!(answer.expect(401)["code"], "token_revoked");

    // Tokens that were issued later, and those of other users, stay valid.
    deployment.until_delivered(&ada, [&fresh], "n2").await;
    deployment.until_delivered(&bob, [&other], "n3").await;
    signed_in(ada.node()).await;
}

fn draft() -> Value {
    json!({ "id": "n1", "title": "What time is it?" })
}

/// The instant this long before the notification was created, by the server's clock.
fn before(notification: &Value, time: Duration) -> String {
    let created = notification["createdAt"].as_str().unwrap();
    let created: chrono::DateTime<chrono::Utc> = created.parse().unwrap();
    (created - time).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

async fn revoked_token_is_rejected_when_the_request_returns(setup: Setup) {
    let deployment = setup.shared().await;
    let operator = operator(&deployment.belfry);
    for n in 0..10 {
        let user = deployment.user(&format!("user{n}"));
        let http = deployment.belfry.http().bearer(old_token(&user));
        http.get("/v1/notifications/unread-count").await.expect(200);
        operator.post(&path(&user), &json!({})).await.expect(200);
        let answer = http.get("/v1/notifications/unread-count").await;
        assert_eq!(answer.expect(401)["code"], "token_revoked");
    }
}

async fn token_of_an_issuer_whose_clock_is_ahead_is_revoked(setup: Setup) {
    let deployment = setup.own_with(|belfry| belfry.setting("auth.leeway", "60s")).await;
    let ada = deployment.user("ada");
    let ahead = key().token(ada.id()).issued_in(Duration::from_secs(30)).sign();
    let device = signed_in(ada.node().token(&ahead).reconnection(false)).await;
    operator(&deployment.belfry).post(&path(&ada), &json!({})).await.expect(200);
    assert_ended(&device).await;
    let answer = deployment.belfry.http().bearer(&*ahead).get("/v1/notifications").await;
    assert_eq!(answer.expect(401)["code"], "token_revoked");
}

async fn revocation_needs_its_scope(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let body = json!({});
    let belfry = &deployment.belfry;
    for http in [ada.http(), deployment.service()] {
        let refused = http.post(&path(&ada), &body).await;
        assert_eq!(refused.expect(403)["code"], "scope_missing");
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.contains("scope=\"tokens:revoke\""), "{challenge}");
    }
    assert_eq!(belfry.http().post(&path(&ada), &body).await.status, 401);
    let refused = deployment.service().post("/v1/revocations", &body).await;
    assert_eq!(refused.expect(403)["code"], "scope_missing");
    for (path, body, code) in [
        ("/v1/users/a%20b/revocations", json!({}), "id_invalid"),
        ("/v1/users/ada/revocations", json!({ "issuedBefore": "yesterday" }), "body_invalid"),
        ("/v1/users/ada/revocations", json!([]), "body_invalid"),
    ] {
        assert_eq!(operator(belfry).post(path, &body).await.json()["code"], code, "{path} {body}");
    }
    signed_in(ada.node()).await;
}

async fn revocation_survives_a_restart(setup: Setup) {
    let mut deployment = setup.own().await;
    let ada = deployment.user("ada");
    let old = old_token(&ada);
    operator(&deployment.belfry).post(&path(&ada), &json!({})).await.expect(200);
    deployment.belfry.kill();
    deployment.belfry.restart().await;
    assert_eq!(ada.node().token(&old).start().refused().await, "token_revoked");
    // `iat` has a resolution of one second: a token of the same second is still revoked.
    until_true("a new token is accepted", async || {
        ada.http().get("/v1/notifications").await.status == 200
    })
    .await;
}

async fn configured_scopes_are_required(setup: Setup) {
    let deployment = setup
        .own_with(|belfry| {
            belfry
                .setting("auth.scopes.read", "inbox:read")
                .setting("auth.scopes.change", "inbox:change")
        })
        .await;
    let ada = deployment.user("ada");
    deployment.notify(&ada, draft()).await;
    let with_scopes = |scopes: &str| key().token(ada.id()).scope(scopes).sign();

    assert_eq!(ada.node().start().refused().await, "scope_missing");
    let answer = ada.http().get("/v1/notifications").await;
    assert_eq!(answer.expect(403)["code"], "scope_missing");

    let reader = signed_in(ada.node().token(&with_scopes("inbox:read"))).await;
    assert_eq!(reader.call("notification:list", json!({})).await["status"], "ok");
    for (event, payload) in [
        ("notification:mark_read", json!("n1")),
        ("notification:mark_all_read", Value::Null),
        ("notification:delete", json!("n1")),
    ] {
        assert_eq!(reader.call(event, payload).await["code"], "scope_missing", "{event}");
    }
    let http = deployment.belfry.http().bearer(with_scopes("inbox:read"));
    for answer in [
        http.patch("/v1/notifications/n1/read").await,
        http.patch("/v1/notifications/read-all").await,
        http.delete("/v1/notifications/n1").await,
    ] {
        assert_eq!(answer.expect(403)["code"], "scope_missing");
    }
    let refreshed = reader.call("auth:refresh", json!({ "token": ada.token() })).await;
    assert_eq!(refreshed["code"], "scope_missing");

    let changer = signed_in(ada.node().token(&with_scopes("inbox:read inbox:change"))).await;
    assert_eq!(changer.call("notification:mark_read", json!("n1")).await["status"], "ok");
}

/// The request goes to one node only.
#[tokio::test]
async fn every_node_ends_the_sessions_of_a_revoked_token() {
    let backends = Setup::Servers.backends().await;
    let start = async |name: &str| {
        backends.broker().will_delete_queue(backends.broker().node_queue(name));
        ready(backends.belfry().setting("node.name", name).start().await).await
    };
    let (one, other) = (start("one").await, start("other").await);
    let ada = User::new("ada", &one);
    let old = old_token(&ada);
    let here = signed_in(ada.node().token(&old).reconnection(false)).await;
    let there = signed_in(ada.at(&other).node().token(&old).reconnection(false)).await;
    operator(&one).post(&path(&ada), &json!({})).await.expect(200);
    assert_ended(&here).await;
    assert_ended(&there).await;
    for node in [&one, &other] {
        assert_eq!(ada.at(node).node().token(&old).start().refused().await, "token_revoked");
    }

    // A revocation of the tokens of all users reaches every node, too.
    let (bob, cy) = (User::new("bob", &one), User::new("cy", &one));
    let at_one = signed_in(bob.node().token(&old_token(&bob)).reconnection(false)).await;
    let at_other = signed_in(cy.at(&other).node().token(&old_token(&cy)).reconnection(false)).await;
    let body = json!({ "issuedBefore": "2020-01-01T00:00:00.000Z" });
    let revocation = operator(&one).post("/v1/revocations", &body).await.expect(200);
    assert_eq!(revocation, body);
    let later = operator(&one).post("/v1/revocations", &json!({})).await.expect(200);
    assert!(later["issuedBefore"].as_str() > body["issuedBefore"].as_str(), "{later}");
    assert_ended(&at_one).await;
    assert_ended(&at_other).await;
    // A node that starts later rejects the tokens, too. The caller's own token is also revoked.
    let third = start("third").await;
    for node in [&one, &other, &third] {
        let answer = node.http().bearer(old_token(&bob)).get("/v1/notifications").await;
        assert_eq!(answer.expect(401)["code"], "token_revoked");
    }
    until_true("a new token is accepted", async || {
        let new = operator(&third).post("/v1/users/dan/revocations", &json!({})).await;
        new.status == 200
    })
    .await;
}

/// If the settings allow it, a service may revoke tokens by a message, in forward mode, too.
#[tokio::test]
async fn allowed_revocation_by_message_works_in_both_modes() {
    for mode in ["store", "forward"] {
        let configure = |belfry: Builder| {
            belfry.setting("amqp.ingest.mode", mode).setting("amqp.ingest.revocations", true)
        };
        let deployment = Setup::Servers.own_with(configure).await;
        let ada = deployment.user("ada");
        let device = ada.node().token(&old_token(&ada)).reconnection(false);
        let device = signed_in_without_count(device).await;
        let body = json!({ "pattern": "user.revoke_tokens", "data": { "userId": ada.id() } });
        let amqp = Amqp::connect(deployment.broker().url()).await;
        amqp.send(&deployment.broker().ingest_queue(), &body).await;
        assert_ended(&device).await;
    }
}

#[tokio::test]
async fn revocation_by_message_is_dead_lettered_by_default() {
    let deployment = Setup::Servers.shared().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node().token(&old_token(&ada)).reconnection(false)).await;
    let body = json!({ "pattern": "user.revoke_tokens", "data": { "userId": ada.id() } });
    let amqp = Amqp::connect(deployment.broker().url()).await;
    amqp.send(&deployment.broker().ingest_queue(), &body).await;
    let is_ours = |dead: &Message| dead.json()["data"]["userId"] == ada.id();
    let dead = until("the message is a dead letter", async || {
        amqp.take(&deployment.broker().dead_queue()).await.filter(is_ours)
    })
    .await;
    assert_eq!(dead.header("x-belfry-reason").as_deref(), Some("rejected"));
    assert!(dead.header("x-belfry-error").unwrap().contains("amqp.ingest.revocations"));
    deployment.until_delivered(&ada, [&device], "still-here").await;
}
