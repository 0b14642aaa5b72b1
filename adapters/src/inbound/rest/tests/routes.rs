use axum::body::Body;
use belfry_application::testing::MockInboxRepository;
use http::{Request, StatusCode};
use serde_json::json;

use super::{Api, as_operator, with_scope};
use crate::inbound::rest::{Cors, RestSettings};

#[tokio::test]
async fn panic_fails_only_its_own_request() {
    let mut store = MockInboxRepository::new();
    store.expect_state().returning(|_| panic!("s3cret"));
    let api = Api::with_store(store);
    let problem = api.get("ada", "/v1/notifications/unread-count").await.problem(500, "internal");
    assert!(!problem.to_string().contains("s3cret"));
    api.get("ada", "/health/live").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn health_routes_report_liveness_and_readiness() {
    let api = Api::new();
    let get = |path: &str| api.send(Request::get(path).body(Body::empty()).unwrap());
    let (database, keys) = (api.readiness.register("database"), api.readiness.register("keys"));
    database.up();
    let live = get("/health/live").await.expect(StatusCode::OK);
    assert_eq!(live, json!({ "status": "live" }));
    let not_ready = get("/health/ready").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    let checks = json!({ "database": "up", "keys": "down" });
    let reasons = json!({ "keys": "not checked yet" });
    let expected = json!({ "status": "not_ready", "checks": checks, "reasons": reasons });
    assert_eq!(not_ready, expected);
    keys.down("no keys");
    let not_ready = get("/health/ready").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(not_ready["reasons"], json!({ "keys": "no keys" }));
    keys.up();
    let ready = get("/health/ready").await.expect(StatusCode::OK);
    let expected = json!({ "status": "ready", "checks": { "database": "up", "keys": "up" } });
    assert_eq!(ready, expected);
}

#[tokio::test]
async fn operations_on_inboxes_are_rejected_in_forward_mode() {
    let api = Api::in_forward_mode();
    for (method, path) in [
        ("GET", "/v1/notifications?page=2"),
        ("GET", "/v1/notifications/unread-count"),
        ("GET", "/v1/notifications/n1"),
        ("DELETE", "/v1/notifications/n1"),
        ("PATCH", "/v1/notifications/n1/read"),
        ("PATCH", "/v1/notifications/read-all"),
    ] {
        api.call("ada", method, path).await.problem(409, "inbox_not_kept");
    }
    let draft = json!({ "userId": "ada", "title": "Hello" });
    api.post("/v1/notifications", draft.clone()).await.problem(409, "inbox_not_kept");
    let batch = json!({ "notifications": [draft] });
    api.post("/v1/notifications/batch", batch).await.problem(409, "inbox_not_kept");
    let anonymous = Request::get("/v1/notifications").body(Body::empty()).unwrap();
    api.send(anonymous).await.problem(401, "token_missing");
    // Belfry verifies tokens in forward mode too, and may have data from an earlier time in store mode.
    let revoke = as_operator("/v1/users/ada/revocations").body("{}".into()).unwrap();
    api.send(revoke).await.expect(StatusCode::OK);
    let erase = with_scope("erase", "/v1/users/ada").method("DELETE");
    api.send(erase.body(Body::empty()).unwrap()).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn contract_is_served_without_authentication() {
    let request = Request::get("/openapi.json").body(Body::empty()).unwrap();
    let response = Api::new().send(request).await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.expect(StatusCode::OK)["openapi"], "3.1.0");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_and_others_may_not() {
    let allowed = "https://app.example.org";
    let preflight = |origin: &str| {
        let request = Request::builder().method("OPTIONS").uri("/v1/notifications");
        let request = request.header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "authorization");
        request.header("origin", origin).body(Body::empty()).unwrap()
    };
    let without_cors = Api::new().send(preflight(allowed)).await;
    assert_eq!(without_cors.header("access-control-allow-origin"), None);

    let cors = Cors { origins: vec![allowed.parse().unwrap()], ..Cors::default() };
    let api = Api::with_settings(RestSettings { cors, ..RestSettings::default() });
    let response = api.send(preflight(allowed)).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.header("access-control-allow-origin"), Some(allowed));
    let headers = response.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("idempotency-key") && headers.contains("authorization"));
    let other = api.send(preflight("https://evil.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), None);

    let rejected = Request::get("/v1/notifications").header("origin", allowed);
    let rejected = api.send(rejected.body(Body::empty()).unwrap()).await;
    rejected.problem(401, "token_missing");
    assert_eq!(
        rejected.header("access-control-allow-origin"),
        Some(allowed),
        "pages can read errors"
    );
}
