//! Sign-in: the tokens that are accepted, the codes with which others are rejected, and the end of a session.

use std::time::Duration;

use belfry_tests::clients::Device;
use belfry_tests::http::{Http, send};
use belfry_tests::process::Belfry;
use belfry_tests::tokens::{Key, Token};
use belfry_tests::wait::PATIENCE;
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::setup::{Setup, User, key, notify, ready, signed_in};

on_both_setups!(
    bad_token_is_rejected_with_its_code,
    token_is_read_from_auth_or_the_authorization_header,
    session_ends_when_its_token_expires,
    refreshed_session_outlives_its_first_token,
    session_is_not_refreshed_with_a_bad_token_or_another_users_token,
);

/// The lifetime of a short token: short enough to wait for, and long enough to connect on a busy machine.
const SHORT_LIFE: Duration = Duration::from_secs(8);

async fn bad_token_is_rejected_with_its_code(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let url = deployment.belfry.url();
    let bad = bad_tokens(&ada);

    let (websocket, polling) = (Device::node(url), Device::node(url).transports(["polling"]));
    for device in [websocket.start(), polling.namespace("/notifications").start()] {
        assert_eq!(device.refused().await, "token_missing");
        for (token, code) in &bad {
            device.set_auth(json!({ "token": token }));
            device.reconnect();
            assert_eq!(device.refused().await, *code, "{token}");
        }
        // The same client connects once it has a good token.
        device.set_auth(json!({ "token": ada.token() }));
        device.reconnect();
        device.of_kind("connect").await;
    }

    let polling = ["polling"];
    let devices = [
        (Device::python(url).namespace("/notifications").start(), "token_missing"),
        (Device::python(url).token(&bad[0].0).start(), bad[0].1),
        (Device::python(url).transports(polling).token(&bad[1].0).start(), bad[1].1),
    ];
    for (device, code) in devices {
        assert_eq!(device.refused().await, code);
        assert!(
            device.records().iter().all(|record| record.kind != "connect"),
            "{}",
            device.transcript()
        );
    }
}

/// Bad tokens for ada, each with the expected error code.
fn bad_tokens(ada: &User) -> Vec<(String, &'static str)> {
    let (ours, theirs) = (key(), Key::hs256("the secret of another issuer, as long as ours"));
    let hour = Duration::from_hours(1);
    vec![
        (ours.token(ada.id()).expired_for(hour).sign(), "token_expired"),
        (theirs.token(ada.id()).sign(), "token_invalid"),
        (ours.token("eve").forge(ada.id()), "token_invalid"),
        (ours.token(ada.id()).unsigned(), "token_invalid"),
        (Key::rs256().token(ada.id()).sign(), "token_invalid"),
        // The signature is checked before the expiry.
        (theirs.token(ada.id()).expired_for(hour).sign(), "token_invalid"),
        (ours.token("a b").sign(), "token_invalid"),
        (ours.token(ada.id()).claim("exp", Value::Null).sign(), "token_invalid"),
        ("no.token.at-all".to_owned(), "token_invalid"),
        (String::new(), "token_missing"),
    ]
}

async fn token_is_read_from_auth_or_the_authorization_header(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let url = deployment.belfry.url();
    let bearer = format!("Bearer {}", ada.token());
    let devices = tokio::join!(
        signed_in(Device::node(url).token(&bearer)),
        signed_in(Device::node(url).header("authorization", &bearer)),
        signed_in(Device::python(url).header("Authorization", &bearer).transports(["polling"])),
    );
    // If both are present, `auth` has precedence: the application sets it for each connect.
    let both = Device::node(url).token(&ada.token()).header("authorization", "Bearer bad");
    let devices = [devices.0, devices.1, devices.2, signed_in(both).await];
    deployment.until_delivered(&ada, &devices, "n1").await;

    // URLs end up in logs, so by default a token in the query is ignored.
    let in_query = Device::node(url).option("query", json!({ "token": ada.token() })).start();
    assert_eq!(in_query.refused().await, "token_missing");
}

/// A token that expires so soon that the client is warned at once.
fn short_token(user: &User) -> String {
    key().token(user.id()).expires_in(SHORT_LIFE).sign()
}

/// Connects this device with a [`short_token`]. The device's process starts before the token is issued, so
/// that its startup does not use up the token's lifetime. Until then the device is rejected, so that it
/// has no other session that could receive events.
async fn with_short_token(user: &User, device: belfry_tests::clients::Builder) -> Device {
    let device = device.token("").start();
    assert_eq!(device.refused().await, "token_missing");
    device.set_auth(json!({ "token": short_token(user) }));
    device.reconnect();
    device.of_kind("connect").await;
    device.expect("notification:sync").await;
    device
}

async fn session_ends_when_its_token_expires(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let devices = tokio::join!(
        with_short_token(&ada, ada.node().reconnection(false)),
        with_short_token(&ada, ada.python().transports(["polling"]).reconnection(false)),
    );
    let devices = [devices.0, devices.1];
    for device in &devices {
        let expiring = device.expect("auth:expiring").await;
        assert!(expiring["expiresAt"].as_str().unwrap().ends_with('Z'), "{expiring}");
        let exception = device.expect("exception").await;
        assert_eq!(
            (&exception["status"], &exception["code"]),
            (&json!("error"), &json!("token_expired"))
        );
        device.disconnected().await;
        assert_eq!(device.events("auth:expiring").len(), 1, "{}", device.transcript());
    }

    deployment.notify(&ada, json!({ "title": "Too late" })).await;
    for device in &devices {
        device.reconnect();
        assert_eq!(device.refused().await, "token_expired");
        assert_eq!(device.events("notification:new"), Vec::<Value>::new());
    }
}

async fn refreshed_session_outlives_its_first_token(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let devices = tokio::join!(
        with_short_token(&ada, ada.node()),
        with_short_token(&ada, ada.python().namespace("/notifications")),
    );
    let devices = [devices.0, devices.1];
    let begin = Instant::now();
    for (device, prefix) in devices.iter().zip(["", "Bearer "]) {
        device.expect("auth:expiring").await;
        let token = json!({ "token": format!("{prefix}{}", ada.token()) });
        let answer = device.call("auth:refresh", token).await;
        assert_eq!(answer["status"], "ok", "{answer}");
        assert!(answer["data"]["expiresAt"].as_str().unwrap().ends_with('Z'), "{answer}");
    }

    sleep((SHORT_LIFE + Duration::from_secs(2)).saturating_sub(begin.elapsed())).await;

    deployment.until_delivered(&ada, &devices, "n1").await;
    for device in &devices {
        assert_eq!(device.call("notification:unread_count", Value::Null).await["status"], "ok");
        assert_eq!(device.events("exception"), Vec::<Value>::new());
        let disconnected = device.records().into_iter().any(|it| it.kind == "disconnect");
        assert!(!disconnected, "{}", device.transcript());
    }
}

async fn session_is_not_refreshed_with_a_bad_token_or_another_users_token(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, eve) = (deployment.user("ada"), deployment.user("eve"));
    let device = [signed_in(eve.node()).await];
    let hour = Duration::from_hours(1);
    for (token, code) in [
        (json!(ada.token()), "token_of_other_user"),
        (json!(key().token(eve.id()).expired_for(hour).sign()), "token_expired"),
        (json!(key().token(eve.id()).forge(ada.id())), "token_invalid"),
        (json!(""), "token_missing"),
        (Value::Null, "token_missing"),
    ] {
        let answer = device[0].call("auth:refresh", json!({ "token": token })).await;
        assert_eq!((&answer["status"], &answer["code"]), (&json!("error"), &json!(code)));
    }
    // The session continues, and it still belongs to its user.
    deployment.notify(&ada, json!({ "id": "for-ada", "title": "For ada" })).await;
    deployment.until_delivered(&eve, &device, "for-eve").await;
    assert_eq!(device[0].events("notification:new").len(), 1);
}

/// Uses a raw WebSocket, because a client library does not show which side closes the transport, and when.
#[tokio::test]
async fn server_closes_the_transport_of_a_rejected_device_at_once() {
    // Long enough that this timeout cannot cause the close.
    let deployment =
        Setup::Embedded.own_with(|builder| builder.setting("socket.connect_timeout", "1h")).await;
    let address = deployment.belfry.url().replace("http://", "ws://");
    for namespace in ["", "/notifications,"] {
        let url = format!("{address}/socket.io/?EIO=4&transport=websocket");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let connect = format!("40{namespace}{}", json!({ "token": "bad" }));
        socket.send(Message::text(connect)).await.unwrap();

        let mut frames = Vec::new();
        let until_closed = async {
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                frames.push(text.to_string());
            }
        };
        timeout(PATIENCE, until_closed).await.expect("the server closes the transport");
        let connect_error = format!("44{namespace}{}", json!({ "message": "token_invalid" }));
        assert!(frames.contains(&connect_error), "{frames:?}");
    }
}

/// Starts a `belfry` that trusts this public key, with these further settings.
async fn trusting(key: &Key, settings: &[(&str, &str)]) -> Belfry {
    let mut file = NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, key.public_pem().as_bytes()).unwrap();
    let builder = Belfry::builder().setting("auth.public_key_file", file.path().display());
    let configured = settings.iter().fold(builder, |it, (path, value)| it.setting(path, value));
    ready(configured.start().await).await
}

/// Sends a request with this token and returns the error code; `None` if the token is accepted.
async fn rejection_code(belfry: &Belfry, token: &str) -> Option<String> {
    let answer = belfry.http().bearer(token).get("/v1/notifications/unread-count").await;
    match answer.status {
        200 => None,
        _ => Some(answer.expect(401)["code"].as_str().unwrap().to_owned()),
    }
}

#[tokio::test]
async fn each_type_of_public_key_accepts_only_tokens_that_it_has_signed() {
    for key in [Key::rs256(), Key::es256(), Key::eddsa()] {
        let belfry = trusting(&key, &[]).await;
        let token = key.token("ada");
        let device = signed_in(Device::node(belfry.url()).token(&token.sign())).await;
        let service = belfry.http().bearer(token.scope("notifications:write").sign());
        let draft = json!({ "userId": "ada", "title": "Hello" });
        service.post("/v1/notifications", &draft).await.expect(201);
        assert_eq!(device.expect("notification:new").await["title"], "Hello");

        device.disconnect();
        device.disconnected().await;
        let token = key.token("ada");
        for bad in [
            token.confused(),
            token.unsigned(),
            key.token("eve").forge("ada"),
            Key::rs256().token("ada").sign(),
            Key::eddsa().token("ada").sign(),
            Key::hs256(crate::setup::SECRET).token("ada").sign(),
        ] {
            device.set_auth(json!({ "token": bad }));
            device.reconnect();
            assert_eq!(device.refused().await, "token_invalid", "{bad}");
            assert_eq!(
                rejection_code(&belfry, &bad).await.as_deref(),
                Some("token_invalid"),
                "{bad}"
            );
        }
    }
}

#[tokio::test]
async fn issuer_audience_and_claim_names_are_checked_as_configured() {
    let key = Key::es256();
    let settings = [
        ("auth.issuer", "https://id.example.org/"),
        ("auth.audience", "belfry, bell"),
        ("auth.user_claim", "ext.user.id"),
        ("auth.scope_claim", "roles"),
        ("auth.leeway", "30s"),
    ];
    let belfry = trusting(&key, &settings).await;
    let token = || -> Token<'_> {
        let token = key.token("not-this-one").claim("ext", json!({ "user": { "id": "ada" } }));
        token.issuer("https://id.example.org/").audience("bell")
    };

    let device = signed_in(Device::node(belfry.url()).token(&token().sign())).await;
    let scopes = json!(["openid", "notifications:write"]);
    let service = belfry.http().bearer(token().claim("roles", scopes).sign());
    let draft = json!({ "userId": "ada", "title": "Hello" });
    service.post("/v1/notifications", &draft).await.expect(201);
    assert_eq!(device.expect("notification:new").await["userId"], "ada");
    let just_expired = token().expired_for(Duration::from_secs(5)).sign();
    assert_eq!(rejection_code(&belfry, &just_expired).await, None, "within the leeway");

    for (bad, code) in [
        (token().issuer("https://id.example.com/"), "token_invalid"),
        (token().claim("iss", Value::Null), "token_invalid"),
        (token().audience("shop"), "token_invalid"),
        (token().claim("aud", Value::Null), "token_invalid"),
        (token().claim("ext", Value::Null), "token_invalid"),
        (token().expired_for(Duration::from_mins(2)), "token_expired"),
    ] {
        let bad = bad.sign();
        let device = Device::node(belfry.url()).token(&bad).start();
        assert_eq!(device.refused().await, code, "{bad}");
        assert_eq!(rejection_code(&belfry, &bad).await.as_deref(), Some(code), "{bad}");
    }
    let no_scope = belfry.http().bearer(token().scope("notifications:write").sign());
    let answer = no_scope.post("/v1/notifications", &draft).await.expect(403);
    assert_eq!(answer["code"], "scope_missing");
}

#[tokio::test]
async fn token_in_the_query_is_accepted_where_configured() {
    let deployment =
        Setup::Embedded.own_with(|builder| builder.setting("socket.token_in_query", true)).await;
    let ada = deployment.user("ada");
    let query = json!({ "token": ada.token() });
    for device in [Device::node(deployment.belfry.url()), Device::python(deployment.belfry.url())] {
        signed_in(device.option("query", query.clone())).await;
    }
    assert!(!deployment.belfry.log().contains(&ada.token()), "a token in the log");
}

#[tokio::test]
async fn development_sign_in_works_without_a_configured_key() {
    let belfry = ready(Belfry::builder().start().await).await;
    let token = async |user: &str| {
        let answer = belfry.http().post("/dev/token", &json!({ "user": user })).await.expect(200);
        answer["token"].as_str().unwrap().to_owned()
    };
    let device = signed_in(Device::node(belfry.url()).token(&token("ada").await)).await;
    let service = belfry.http().bearer(token("bob").await);
    let draft = json!({ "userId": "ada", "title": "Hello" });
    service.post("/v1/notifications", &draft).await.expect(201);
    assert_eq!(device.expect("notification:new").await["title"], "Hello");

    let anonymous = Http::new(belfry.url());
    anonymous.get("/v1/notifications").await.expect(401);
    let forged = Key::hs256("development").token("ada").sign();
    assert_eq!(rejection_code(&belfry, &forged).await.as_deref(), Some("token_invalid"));
}

#[tokio::test]
async fn development_sign_in_is_disabled_with_a_configured_key() {
    let deployment = Setup::Embedded.shared().await;
    let answer = deployment.belfry.http().post("/dev/token", &json!({ "user": "ada" })).await;
    assert_eq!(answer.status, 404, "{answer:#?}");
    assert_eq!(deployment.belfry.http().get("/").await.status, 404);
}

#[tokio::test]
async fn development_sign_in_is_rejected_through_a_proxy() {
    let belfry = ready(Belfry::builder().start().await).await;
    for header in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Via", "X-Real-IP"] {
        let request = belfry.http().request(Method::POST, "/dev/token");
        let request = request.header(header, "203.0.113.9").json(&json!({ "user": "ada" }));
        let answer = send(request).await;
        assert_eq!(answer.status, 403, "{header}: {answer:#?}");
    }
    let proxied = Belfry::builder().setting("http.trusted_proxies", "10.0.0.1");
    let proxied = ready(proxied.start().await).await;
    let answer = proxied.http().post("/dev/token", &json!({ "user": "ada" })).await;
    assert_eq!(answer.status, 404, "{answer:#?}");
}

#[tokio::test]
async fn tokens_are_not_logged() {
    let deployment =
        Setup::Embedded.own_with(|builder| builder.setting("log.level", "trace")).await;
    let ada = deployment.user("ada");
    let token = ada.token();
    signed_in(ada.node()).await;
    let eve = key().token("eve").forge(ada.id());
    let device = Device::node(deployment.belfry.url()).token(&eve).start();
    assert_eq!(device.refused().await, "token_invalid");
    notify(&deployment.belfry, &ada, json!({ "title": "Hello", "message": "between us" })).await;
    ada.http().get("/v1/notifications").await.expect(200);

    let log = deployment.belfry.log();
    for secret in [&token, &eve] {
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!log.contains(signature), "a token in the log");
    }
    assert!(!log.contains(crate::setup::SECRET), "the secret in the log");
}

#[tokio::test]
async fn session_of_a_token_with_a_far_expiry_ends_after_the_maximum_lifetime() {
    const YEAR_9999: i64 = 253_402_300_799;
    let key = Key::es256();
    let belfry = trusting(&key, &[("auth.max_lifetime", "60s")]).await;
    let endless = key.token("ada").claim("exp", YEAR_9999);
    // This token has eight seconds left: long enough to connect, and short enough to wait for.
    let almost_over = endless.clone().issued_ago(Duration::from_secs(52)).sign();
    let device =
        signed_in(Device::node(belfry.url()).token(&almost_over).reconnection(false)).await;
    assert_eq!(device.expect("exception").await["code"], "token_expired");
    device.disconnected().await;
    assert_eq!(rejection_code(&belfry, &almost_over).await.as_deref(), Some("token_expired"));
    let without_iat = endless.claim("iat", Value::Null).sign();
    assert_eq!(rejection_code(&belfry, &without_iat).await.as_deref(), Some("token_invalid"));
}
