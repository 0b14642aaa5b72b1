//! REST: every failure is a problem document with a stable code.

use belfry_tests::http::{Answer, Http, send};
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Setup, User, key};

on_both_setups!(
    invalid_body_is_rejected_with_the_path_of_the_error,
    invalid_token_is_rejected_with_a_code,
    request_with_an_idempotency_key_takes_effect_once,
    notification_of_another_user_is_not_found,
    health_is_served_at_both_listeners,
);

/// Checks that the response is a problem document with this status and code, and returns it.
#[track_caller]
fn expect_problem(answer: &Answer, status: u16, code: &str) -> Value {
    let body = answer.expect(status);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:#?}");
    assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)));
    assert_eq!(body["type"], format!("urn:belfry:problem:{code}"));
    for field in ["title", "detail"] {
        assert_ne!(body[field].as_str().unwrap(), "", "{field} in {body}");
    }
    body
}

async fn post_raw(http: &Http, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = http.request(Method::POST, "/v1/notifications");
    send(request.header("content-type", content_type).body(body)).await
}

async fn invalid_body_is_rejected_with_the_path_of_the_error(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let service = deployment.service();
    let json = "application/json";
    for malformed in ["", "{", "{\"userId\":}", "not json", "{} {}"] {
        expect_problem(&post_raw(&service, json, malformed).await, 400, "json_malformed");
    }
    let not_text = vec![b'"', 0xff, b'"'];
    let answer = post_raw(&service, json, not_text).await;
    assert!((400..500).contains(&answer.status), "{answer:#?}");
    let form = "application/x-www-form-urlencoded";
    expect_problem(&post_raw(&service, form, "title=Hello").await, 415, "content_type_unsupported");

    for (body, pointer) in [
        (json!({ "userId": ada.id(), "title": 7 }), "#/title"),
        (json!({ "userId": ada.id(), "title": " " }), "#/title"),
        (json!({ "userId": ada.id() }), "#/title"),
        (json!({ "title": "To whom?" }), "#/userId"),
        (json!({ "userId": "a b", "title": "Hello" }), "#/userId"),
        (json!({ "userId": ada.id(), "title": "x".repeat(201) }), "#/title"),
        (json!({ "userId": ada.id(), "title": "Hello", "data": [1] }), "#/data"),
        (json!({ "userId": ada.id(), "title": "Hello", "link": "javascript:alert(1)" }), "#/link"),
        (json!({ "userId": ada.id(), "title": "Hello", "priority": "loud" }), "#/priority"),
        (json!({ "userId": ada.id(), "title": "Hello", "expiresAt": "tomorrow" }), "#/expiresAt"),
        (json!({ "userId": ada.id(), "title": "Hello", "id": "a b" }), "#/id"),
        (json!({ "userIds": [], "title": "Hello" }), "#/userIds"),
        (json!([{ "userId": ada.id(), "title": "Hello" }]), "#"),
    ] {
        let answer = service.post("/v1/notifications", &body).await;
        let problem = expect_problem(&answer, 422, "body_invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let batch = json!({ "notifications": [
        { "userId": ada.id(), "title": "Good" }, { "userId": ada.id(), "title": "" },
    ]});
    let answer = service.post("/v1/notifications/batch", &batch).await;
    let problem = expect_problem(&answer, 422, "body_invalid");
    assert_eq!(problem["errors"][0]["pointer"], "#/notifications/1/title", "{problem}");

    // None of these requests has stored anything.
    let page = ada.http().get("/v1/notifications").await.expect(200);
    assert_eq!((&page["items"], &page["revision"]), (&json!([]), &json!(0)));
}

async fn invalid_token_is_rejected_with_a_code(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let http = deployment.belfry.http();
    let expired = key().token(ada.id()).expired_for(std::time::Duration::from_hours(1)).sign();
    let forged = key().token("eve").forge(ada.id());
    for path in ["/v1/notifications", "/v1/notifications/unread-count", "/v1/notifications/n1"] {
        let missing = http.get(path).await;
        expect_problem(&missing, 401, "token_missing");
        assert!(missing.header("www-authenticate").unwrap().starts_with("Bearer"), "{missing:#?}");
        expect_problem(&http.bearer(&*expired).get(path).await, 401, "token_expired");
        expect_problem(&http.bearer(&*forged).get(path).await, 401, "token_invalid");
        expect_problem(&http.bearer("nonsense").get(path).await, 401, "token_invalid");
    }
    let draft = json!({ "userId": ada.id(), "title": "To myself" });
    for path in ["/v1/notifications", "/v1/notifications/batch"] {
        expect_problem(&ada.http().post(path, &draft).await, 403, "scope_missing");
        expect_problem(&http.post(path, &draft).await, 401, "token_missing");
    }
}

async fn request_with_an_idempotency_key_takes_effect_once(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let service = deployment.service();
    let post = async |http: &Http, title: &str, idempotency_key: &str| {
        let draft = json!({ "userId": ada.id(), "title": title });
        let request = http.request(Method::POST, "/v1/notifications").json(&draft);
        send(request.header("idempotency-key", idempotency_key)).await
    };
    let order_7 = format!("order-7-{}", ada.id());

    let first = post(&service, "Once", &order_7).await;
    let again = post(&service, "Once", &order_7).await;
    assert_eq!(again.expect(201)["id"], first.expect(201)["id"]);
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let different = post(&service, "Something else", &order_7).await;
    expect_problem(&different, 422, "idempotency_key_reused");
    expect_problem(&post(&service, "Once", &"k".repeat(300)).await, 400, "idempotency_key_invalid");

    // Of concurrent requests with the same key, only one takes effect.
    let order_8 = format!("order-8-{}", ada.id());
    let at_once = (0..8).map(async |_| post(&service, "At once", &order_8).await);
    let answers = futures_util::future::join_all(at_once).await;
    let mut ids: Vec<_> = answers.iter().map(|it| it.expect(201)["id"].to_string()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");

    // Another caller may use the same key for another request.
    let token = key().token("another-shop").scope("notifications:write").sign();
    let other = deployment.belfry.http().bearer(token);
    assert_ne!(post(&other, "At once", &order_8).await.expect(201)["id"].to_string(), ids[0]);
    let count = ada.http().get("/v1/notifications/unread-count").await.expect(200);
    assert_eq!(count["count"], 3);
}

async fn notification_of_another_user_is_not_found(setup: Setup) {
    let deployment = setup.shared().await;
    let (ada, eve) = (deployment.user("ada"), deployment.user("eve"));
    let created = deployment.notify(&ada, json!({ "title": "For ada" })).await;
    let path = format!("/v1/notifications/{}", created["id"].as_str().unwrap());
    let may_write = key().token(eve.id()).scope("notifications:write").sign();

    for http in [eve.http(), deployment.belfry.http().bearer(may_write)] {
        expect_problem(&http.get(&path).await, 404, "not_found");
        expect_problem(&http.delete(&path).await, 404, "not_found");
        for method in [Method::PATCH, Method::POST, Method::PUT] {
            let answer = send(http.request(method, &format!("{path}/read"))).await;
            expect_problem(&answer, 404, "not_found");
        }
        http.patch("/v1/notifications/read-all").await.expect(200);
        let page = http.get(&format!("/v1/notifications?userId={}", ada.id())).await;
        // The parameter may be ignored or rejected, but it must not open another inbox.
        assert!(!page.text.contains("For ada"), "{page:#?}");
    }
    assert_eq!(ada.http().get(&path).await.expect(200), created);
}

async fn health_is_served_at_both_listeners(setup: Setup) {
    let deployment = setup.shared().await;
    for http in [deployment.belfry.http(), deployment.belfry.admin_http()] {
        assert_eq!(http.get("/health/live").await.expect(200)["status"], "live");
        let health = http.get("/health/ready").await.expect(200);
        assert_eq!(health["status"], "ready");
        let checks = health["checks"].as_object().unwrap();
        assert!(!checks.is_empty() && checks.values().all(|it| it == "up"), "{health}");
    }
}

#[tokio::test]
async fn unknown_routes_ids_and_parameters_are_problems() {
    let deployment = Setup::Embedded.shared().await;
    let ada = deployment.user("ada");
    let http = ada.http();
    for path in ["/v1", "/v1/nothing", "/v2/notifications", "/nothing", "/v1/notifications/n1/x"] {
        expect_problem(&http.get(path).await, 404, "route_unknown");
    }
    expect_problem(&http.get("/v1/notifications/no-such").await, 404, "not_found");
    expect_problem(&http.get("/v1/notifications/a%20b").await, 400, "id_invalid");
    let wrong_method = http.delete("/v1/notifications").await;
    expect_problem(&wrong_method, 405, "method_not_allowed");
    assert!(wrong_method.header("allow").is_some(), "{wrong_method:#?}");
    for (query, code) in [
        ("cursor=2", "cursor_invalid"),
        ("cursor=AQAAAAAAAAAR%00", "cursor_invalid"),
        ("cursor=", "cursor_invalid"),
        ("limit=0", "query_invalid"),
        ("limit=101", "query_invalid"),
        ("limit=ten", "query_invalid"),
        ("unread=perhaps", "query_invalid"),
        ("type=", "query_invalid"),
        ("limit=1&limit=2", "query_invalid"),
    ] {
        expect_problem(&http.get(&format!("/v1/notifications?{query}")).await, 400, code);
    }
}

#[tokio::test]
async fn ids_of_other_services_with_special_characters_are_found() {
    let deployment = Setup::Embedded.shared().await;
    let ada = deployment.user("ada");
    for id in ["42", "507f1f77bcf86cd799439011", "shop/7?x=ä&y#z", "unread-count", "read-all"] {
        let draft = json!({ "userId": ada.id(), "id": id, "title": "Hello" });
        let answer = deployment.service().post("/v1/notifications", &draft).await;
        assert_eq!(answer.expect(201)["id"], id);
        let Some(location) = answer.header("location") else { panic!("no location for {id}") };
        if !["unread-count", "read-all"].contains(&id) {
            assert_eq!(ada.http().get(location).await.expect(200)["id"], id);
        }
    }
}

#[tokio::test]
async fn openapi_document_lists_all_operations() {
    let deployment = Setup::Embedded.shared().await;
    let contract = deployment.belfry.http().get("/openapi.json").await.expect(200);
    assert!(contract["openapi"].as_str().unwrap().starts_with("3."), "{}", contract["openapi"]);
    for (path, method) in [
        ("/v1/notifications", "post"),
        ("/v1/notifications", "get"),
        ("/v1/notifications/batch", "post"),
        ("/v1/notifications/{id}", "get"),
        ("/v1/notifications/{id}", "delete"),
        ("/v1/notifications/{id}/read", "patch"),
        ("/v1/notifications/read-all", "patch"),
        ("/v1/notifications/unread-count", "get"),
    ] {
        assert!(contract["paths"][path][method].is_object(), "{method} {path}");
    }
}

#[tokio::test]
async fn metrics_are_served_at_the_admin_listener_only() {
    let deployment = Setup::Servers.shared().await;
    let ada = deployment.user("ada");
    deployment.notify(&ada, json!({ "title": "Hello" })).await;
    let metrics = deployment.belfry.admin_http().get("/metrics").await;
    assert_eq!(metrics.status, 200, "{metrics:#?}");
    assert!(metrics.text.contains("belfry_http_request_seconds"), "{}", metrics.text);
    assert!(!metrics.text.contains(ada.id()), "no user is a label");
    assert_eq!(deployment.belfry.http().get("/metrics").await.status, 404);
}

#[tokio::test]
async fn too_large_body_is_rejected() {
    let deployment =
        Setup::Embedded.own_with(|builder| builder.setting("http.max_body", 1_000)).await;
    // The body is small enough to be sent before the response: a client that is still sending may not read it.
    let body = format!("{{\"title\":\"{}\"}}", "x".repeat(1_000));
    let answer = post_raw(&deployment.service(), "application/json", body).await;
    expect_problem(&answer, 413, "body_too_large");
    deployment.notify(&deployment.user("ada"), json!({ "title": "Small enough" })).await;
}

/// A browser lets a page of another origin read a response only with `access-control-allow-origin`.
#[tokio::test]
async fn configured_origins_may_read_responses() {
    let configure = |builder: belfry_tests::process::Builder| {
        builder.setting("http.cors_origins", "https://app.example.org")
    };
    let (closed, open) =
        tokio::join!(Setup::Embedded.shared(), Setup::Embedded.own_with(configure));
    let get_from = async |user: &User, origin: &str| {
        let request = user.http().request(Method::GET, "/v1/notifications");
        send(request.header("origin", origin)).await
    };
    let allowed = get_from(&open.user("ada"), "https://app.example.org").await;
    let header = "access-control-allow-origin";
    assert_eq!(allowed.header(header), Some("https://app.example.org"));
    assert_eq!(get_from(&open.user("ada"), "https://evil.example.org").await.header(header), None);
    assert_eq!(get_from(&closed.user("ada"), "https://app.example.org").await.header(header), None);
}
