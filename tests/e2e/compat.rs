//! Clients that were written for another server work unchanged: names and shapes of events, namespaces, the
//! place of the token and refusals are configurable.

use belfry_tests::clients::Device;
use belfry_tests::http::{Http, send};
use belfry_tests::process::Builder;
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, key};

/// A convention of clients: the names and shapes that they expect.
struct Convention {
    /// The value of `socket.compat`.
    compat: &'static str,
    /// The event with a new notification.
    new: &'static str,
    /// The field of the payload that has the notification; empty if the payload is the notification.
    wrapper: &'static str,
    /// The event with the unread count.
    count_event: &'static str,
    /// The payload of `count_event` for the count 1 at revision 1.
    count: Value,
    /// The message that marks a notification as read.
    mark_read: &'static str,
    /// The message that requests the unread count.
    get_count: &'static str,
}

/// Belfry's own shape of the unread count.
fn count() -> Value {
    json!({ "count": 1, "revision": 1 })
}

fn conventions() -> [Convention; 12] {
    let names = |compat, new, count_event, mark_read, get_count| Convention {
        compat,
        new,
        wrapper: "",
        count_event,
        count: count(),
        mark_read,
        get_count,
    };
    let nestjs =
        |compat| names(compat, "notification", "unread_count", "markAsRead", "getUnreadCount");
    let camel =
        |compat| names(compat, "newNotification", "unreadCount", "markAsRead", "getUnreadCount");
    let colon = |compat| {
        let count = "notification:count";
        names(compat, "notification:new", count, "notification:read", "getUnreadCount")
    };
    let unread_count = || json!({ "unreadCount": 1, "revision": 1 });
    [
        nestjs("nestjs-default"),
        Convention { wrapper: "notification", ..nestjs("nestjs-default, wrap-notification") },
        Convention { wrapper: "data", ..nestjs("nestjs-default, wrap-data") },
        Convention { count: json!(1), ..nestjs("nestjs-default, count-number") },
        Convention { count: unread_count(), ..nestjs("count-unread-count, nestjs-default") },
        colon("colon-case"),
        Convention { wrapper: "notification", ..colon("colon-case, wrap-notification") },
        names("snake-case", "new_notification", "unread_count", "mark_as_read", "get_unread_count"),
        camel("camel-case"),
        Convention { count: json!(1), ..camel("camel-case, count-number") },
        Convention { count: unread_count(), ..camel("camel-case, count-unread-count") },
        names("kebab-case", "new-notification", "unread-count", "mark-as-read", "get-unread-count"),
    ]
}

async fn works_unchanged(convention: Convention) {
    let Convention { compat, new, wrapper, count_event, count, mark_read, get_count } = convention;
    let deployment = own(|it| it.setting("socket.compat", compat)).await;
    let ada = deployment.user("ada");
    let device = ada.node().connect().await;
    let sent = deployment.notify(&ada, json!({ "id": "n1", "title": "Hello" })).await;

    let payload = device.expect(new).await;
    let received = if wrapper.is_empty() { payload } else { payload[wrapper].clone() };
    assert_eq!(received, sent, "{compat}");
    while device.expect(count_event).await != count {}
    assert_eq!(device.call(get_count, Value::Null).await, count, "{compat}");
    assert_eq!(device.call(mark_read, json!("n1")).await, json!({ "success": true }), "{compat}");
    assert_eq!(deployment.stored(&ada, "n1").await["isRead"], true, "{compat}");
    let belfry = device.call("notification:unread_count", Value::Null).await;
    assert_eq!(belfry["data"]["count"], 0, "{compat}: Belfry's own names remain");
}

async fn own(configure: impl FnOnce(Builder) -> Builder) -> Deployment {
    Setup::Embedded.own_with(configure).await
}

#[tokio::test]
async fn unchanged_client_of_each_convention_receives_and_marks_notifications() {
    // Only a few at a time, because each has a server and a client.
    let all = stream::iter(conventions().map(works_unchanged)).buffer_unordered(4);
    Box::pin(all.collect::<()>()).await;
}

#[tokio::test]
async fn event_with_several_names_arrives_under_each_of_them() {
    let configure = |it: Builder| {
        it.setting("socket.compat", "camel-case")
            .setting("socket.events.new", "notification as {data}, notification:new")
            .setting("socket.messages.list", "getNotifications as items")
    };
    let deployment = own(configure).await;
    let ada = deployment.user("ada");
    let devices = [
        ada.node().connect().await,
        ada.node().transports(["polling"]).namespace("/notifications").connect().await,
    ];
    let sent = deployment.notify(&ada, json!({ "id": "n1", "title": "Hello" })).await;
    for device in &devices {
        assert_eq!(device.expect("notification").await, json!({ "data": sent }));
        assert_eq!(device.expect("notification:new").await, sent);
        assert_eq!(device.events("newNotification"), [Value::Null; 0]);
        let items = device.call("getNotifications", json!({ "limit": 5 })).await;
        assert_eq!(items[0]["id"], "n1");
        assert_eq!(device.call("deleteNotification", json!("n9")).await["success"], false);
    }
}

#[tokio::test]
async fn configured_namespace_behaves_like_the_others_and_unknown_ones_are_rejected() {
    let deployment = own(|it| it.setting("socket.namespaces", "/ws/notifications, /chat")).await;
    let ada = deployment.user("ada");
    let devices = [
        ada.node().connect().await,
        ada.node().namespace("/ws/notifications").connect().await,
        ada.python().transports(["polling"]).namespace("/chat").connect().await,
    ];
    deployment.notify(&ada, json!({ "id": "n1", "title": "Hello" })).await;
    for device in &devices {
        assert_eq!(device.expect("notification:new").await["id"], "n1");
    }
    let answer = devices[1].call("notification:mark_read", json!("n1")).await;
    assert_eq!(answer["status"], "ok");
    let unknown = ada.node().namespace("/ws").start();
    assert_eq!(unknown.refused().await, "Invalid namespace");
}

#[tokio::test]
async fn refusal_by_disconnect_is_a_connect_and_then_a_disconnect() {
    let deployment = own(|it| it.setting("socket.refusal", "disconnect")).await;
    let ada = deployment.user("ada");
    let other = ada.node().connect().await;
    let eve = [
        ada.node().token("garbage").start(),
        ada.node().token("garbage").transports(["polling"]).namespace("/notifications").start(),
    ];
    deployment.notify(&ada, json!({ "id": "n1", "title": "Hello" })).await;
    for device in &eve {
        device.connected().await;
        assert_eq!(device.disconnected().await, "io server disconnect");
    }
    assert_eq!(other.expect("notification:new").await["id"], "n1");
    for device in &eve {
        let kinds: Vec<_> = device.records().into_iter().map(|record| record.kind).collect();
        let events = kinds.iter().filter(|kind| *kind == "event").count();
        assert_eq!((&*kinds[0], events), ("connect", 0), "{}", device.transcript());
        assert!(!kinds.contains(&"connect_error".to_owned()), "{}", device.transcript());
    }
}

#[tokio::test]
async fn client_with_an_older_engine_io_is_refused_with_a_hint_and_a_log_line() {
    let deployment = own(|it| it).await;
    let http = deployment.belfry.http();
    for transport in ["polling", "websocket"] {
        let answer = http.get(&format!("/socket.io/?EIO=3&transport={transport}")).await;
        let body = answer.expect(400);
        assert_eq!((&body["code"], &body["message"]), (&json!(5), &json!(UNSUPPORTED)));
        assert!(body["hint"].as_str().unwrap().contains("socket.io-client 3 or 4"), "{body}");
    }
    let line = deployment.belfry.log_line("the client is too old").await;
    assert!(line.contains("\"version\":3"), "{line}");
    assert_eq!(deployment.belfry.log().matches("the client is too old").count(), 1);
}

/// The error message of Socket.IO's own server, whose error code is 5.
const UNSUPPORTED: &str = "Unsupported protocol version";

#[tokio::test]
async fn token_in_a_cookie_counts_for_allowed_pages_only() {
    const APP: &str = "https://app.example.org";
    let configure = |it: Builder| {
        it.setting("auth.cookie", "jwt")
            .setting("http.cors_origins", APP)
            .setting("http.cors_credentials", true)
    };
    let deployment = own(configure).await;
    let ada = deployment.user("ada");
    let cookie = format!("theme=dark; jwt={}", ada.token());
    for transport in ["polling", "websocket"] {
        let device = ada.node().token("").transports([transport]).header("cookie", &cookie);
        device.clone().header("origin", APP).connect().await;
        assert_eq!(device.start().refused().await, "token_missing", "no page is named");
    }
    let http = Http::new(deployment.belfry.url());
    let list = |method: Method| http.request(method, "/v1/notifications").header("cookie", &cookie);
    send(list(Method::GET).header("origin", APP)).await.expect(200);
    send(list(Method::GET).header("sec-fetch-site", "same-origin")).await.expect(200);
    for page in [("origin", "https://evil.example.org"), ("sec-fetch-site", "cross-site")] {
        let answer = send(list(Method::GET).header(page.0, page.1)).await;
        assert_eq!(answer.expect(401)["code"], "token_missing", "{page:?}");
    }
}

#[tokio::test]
async fn missing_claim_is_named_and_further_user_claims_are_looked_up() {
    let deployment = own(|it| it.setting("auth.user_claim", "sub, userId")).await;
    let (http, key) = (Http::new(deployment.belfry.url()), key());
    let by_user_id = key.token("x").claim("sub", Value::Null).claim("userId", "ada").sign();
    http.bearer(&by_user_id).get("/v1/notifications").await.expect(200);

    let without_exp = key.token("ada").claim("exp", Value::Null).sign();
    let why = "the token has no claim exp";
    let answer = http.bearer(&without_exp).get("/v1/notifications").await.expect(401);
    assert_eq!((&answer["code"], &answer["detail"]), (&json!("token_invalid"), &json!(why)));
    let device = Device::node(deployment.belfry.url()).token(&without_exp).start();
    let refusal = device.of_kind("connect_error").await;
    assert_eq!(refusal.message.as_deref(), Some("token_invalid"));
    assert_eq!(refusal.rest["data"], json!({ "code": "token_invalid", "message": why }));
}

#[tokio::test]
async fn session_of_a_token_without_expiry_ends_after_the_configured_time() {
    let configure =
        |it: Builder| it.setting("auth.require_exp", false).setting("auth.max_session", "2s");
    let deployment = own(configure).await;
    deployment.belfry.log_line("tokens without exp are accepted").await;
    let ada = deployment.user("ada");
    let token = key().token(ada.id()).claim("exp", Value::Null).sign();
    let device = ada.node().token(&token).connect().await;
    assert_eq!(device.expect("exception").await["code"], "token_expired");
    device.disconnected().await;
    // A new session begins with the same token.
    device.reconnect();
    device.connected().await;
}
