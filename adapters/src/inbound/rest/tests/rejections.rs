use std::sync::Arc;

use axum::body::Body;
use belfry_application::ports::{PortError, TokenError};
use belfry_application::testing::{MockInboxRepository, MockTokenVerifier};
use belfry_domain::Draft;
use http::{Request, StatusCode};
use serde_json::json;

use super::{Api, NOW, TestResponse, as_service, as_user};
use crate::inbound::rest::RestSettings;

/// The routes of notifications, all of which require authentication.
const GUARDED: [(&str, &str); 14] = [
    ("POST", "/v1/notifications"),
    ("POST", "/v1/notifications/batch"),
    ("GET", "/v1/notifications"),
    ("HEAD", "/v1/notifications"),
    ("GET", "/v1/notifications/unread-count"),
    ("GET", "/v1/notifications/n1"),
    ("DELETE", "/v1/notifications/n1"),
    ("PATCH", "/v1/notifications/n1/read"),
    ("POST", "/v1/notifications/n1/read"),
    ("PUT", "/v1/notifications/n1/read"),
    ("PATCH", "/v1/notifications/read-all"),
    ("POST", "/v1/notifications/read-all"),
    ("PUT", "/v1/notifications/read-all"),
    ("GET", "/v1/notifications?cursor=nonsense"),
];

async fn with_tokens(api: &Api, method: &str, path: &str, tokens: &[&str]) -> TestResponse {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request =
        tokens.iter().fold(request, |request, token| request.header("authorization", *token));
    api.send(request.body(Body::from("{}")).unwrap()).await
}

#[tokio::test]
async fn every_guarded_route_rejects_missing_and_invalid_tokens() {
    let api = Api::new();
    let good = format!("Bearer ada:{}", NOW + 1);
    let expired = format!("Bearer ada:{NOW}");
    let huge = format!("Bearer {}", "x".repeat(9_000));
    for (method, path) in GUARDED {
        for (tokens, code, challenge) in [
            (&[][..], "token_missing", r#"Bearer realm="belfry""#),
            (&[""], "token_missing", r#"Bearer realm="belfry""#),
            (&["Bearer"], "token_missing", r#"Bearer realm="belfry""#),
            (&["Bearer s3cret"], "token_invalid", r#"Bearer error="invalid_token""#),
            (&["Basic YTpi"], "token_invalid", r#"Bearer error="invalid_token""#),
            (&["Bearer ü"], "token_invalid", r#"Bearer error="invalid_token""#),
            (&[&huge], "token_invalid", r#"Bearer error="invalid_token""#),
            (&[&good, &good], "token_invalid", r#"Bearer error="invalid_token""#),
            (&[&expired], "token_expired", r#"Bearer error="invalid_token""#),
        ] {
            let rejected = with_tokens(&api, method, path, tokens).await;
            assert_eq!(rejected.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(rejected.header("www-authenticate"), Some(challenge), "{tokens:?}");
            if method != "HEAD" {
                let problem = rejected.problem(401, code);
                assert!(!problem.to_string().contains("s3cret"));
            }
        }
    }
}

#[tokio::test]
async fn write_without_scope_is_rejected() {
    let api = Api::new();
    for path in ["/v1/notifications", "/v1/notifications/batch"] {
        let rejected = api.call("ada", "POST", path).await;
        rejected.problem(403, "scope_missing");
        let challenge = rejected.header("www-authenticate").unwrap();
        assert_eq!(challenge, r#"Bearer error="insufficient_scope", scope="notifications:write""#);
    }
}

#[tokio::test]
async fn caller_is_authenticated_before_the_body_is_read() {
    let api = Api::new();
    let not_json = Request::builder().method("POST").uri("/v1/notifications");
    let rejected = api.send(not_json.body(Body::from("not json")).unwrap()).await;
    rejected.problem(401, "token_missing");
}

#[tokio::test]
async fn token_that_cannot_be_verified_now_is_rejected_as_unavailable_with_retry_after() {
    for path in ["/v1/notifications", "/v1/notifications/unread-count"] {
        let mut tokens = MockTokenVerifier::new();
        let down = || TokenError::Port(PortError::unavailable("password=s3cret"));
        tokens.expect_verify().returning(move |_| Err(down()));
        let store = Arc::new(MockInboxRepository::new());
        let api = Api::build(store, Arc::new(tokens), RestSettings::default());
        let rejected = api.get("ada", path).await;
        let problem = rejected.problem(503, "unavailable");
        assert_eq!(rejected.header("retry-after"), Some("1"));
        assert!(!problem.to_string().contains("s3cret"));
    }
}

/// A store whose every operation fails.
fn failing_store(error: fn() -> PortError) -> MockInboxRepository {
    let mut store = MockInboxRepository::new();
    store.expect_epoch().returning(move || Err(error()));
    store.expect_create().returning(move |_: Vec<Draft>| Err(error()));
    store.expect_create_once().returning(move |_, _| Err(error()));
    store.expect_mark_read().returning(move |_, _, _| Err(error()));
    store.expect_mark_all_read().returning(move |_, _| Err(error()));
    store.expect_delete().returning(move |_, _, _| Err(error()));
    store.expect_get().returning(move |_, _| Err(error()));
    store.expect_state().returning(move |_| Err(error()));
    store
}

async fn call_all_routes(api: &Api) -> Vec<TestResponse> {
    let draft = json!({ "userId": "ada", "title": "Hi" });
    let batch = json!({ "notifications": [draft] });
    let mut responses = vec![
        api.post("/v1/notifications", draft.clone()).await,
        api.post_with_key("k1", "/v1/notifications", draft).await,
        api.post("/v1/notifications/batch", batch).await,
    ];
    for (method, path) in GUARDED {
        let writes = path.ends_with("batch") || (method, path) == ("POST", "/v1/notifications");
        if !writes && method != "HEAD" && !path.contains('?') {
            responses.push(api.call("ada", method, path).await);
        }
    }
    responses
}

#[tokio::test]
async fn store_outage_is_unavailable_on_every_route() {
    let api = Api::with_store(failing_store(|| PortError::unavailable("host=db password=s3cret")));
    for response in call_all_routes(&api).await {
        let problem = response.problem(503, "unavailable");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert!(!problem.to_string().contains("s3cret"));
    }
}

#[tokio::test]
async fn store_rejection_is_an_internal_error_on_every_route() {
    let api = Api::with_store(failing_store(|| PortError::rejected("constraint s3cret")));
    for response in call_all_routes(&api).await {
        let problem = response.problem(500, "internal");
        assert!(!problem.to_string().contains("s3cret"));
    }
}

#[tokio::test]
async fn unknown_path_is_rejected() {
    let api = Api::new();
    for path in [
        "/",
        "/v1",
        "/v1/notification",
        "/v1/notifications/",
        "/v1/notifications/a/b",
        "/v2/notifications",
        "/metrics",
    ] {
        api.get("ada", path).await.problem(404, "route_unknown");
    }
}

#[tokio::test]
async fn unsupported_method_is_rejected_with_the_allowed_ones() {
    let api = Api::new();
    for (method, path, allowed) in [
        ("PUT", "/v1/notifications", &["GET", "HEAD", "POST"][..]),
        ("DELETE", "/v1/notifications", &["GET", "HEAD", "POST"]),
        ("PUT", "/v1/notifications/batch", &["DELETE", "GET", "HEAD", "POST"]),
        ("POST", "/v1/notifications/unread-count", &["DELETE", "GET", "HEAD"]),
        ("PATCH", "/v1/notifications/n1", &["DELETE", "GET", "HEAD"]),
        ("GET", "/v1/notifications/n1/read", &["PATCH", "POST", "PUT"]),
        ("OPTIONS", "/v1/notifications/n1/read", &["PATCH", "POST", "PUT"]),
        ("POST", "/health/live", &["GET", "HEAD"]),
        ("POST", "/openapi.json", &["GET", "HEAD"]),
    ] {
        let rejected = api.call("ada", method, path).await;
        rejected.problem(405, "method_not_allowed");
        let mut methods: Vec<_> = rejected.header("allow").unwrap().split(',').collect();
        methods.sort_unstable();
        assert_eq!(methods, allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn malformed_json_is_rejected_with_its_position() {
    let api = Api::new();
    for path in ["/v1/notifications", "/v1/notifications/batch"] {
        for body in ["", "{", "{\"title\": s3cret}", "{\"notifications\":[]}{}", "\u{feff}{}"] {
            let request = as_service(path).body(Body::from(body)).unwrap();
            let problem = api.send(request).await.problem(400, "json_malformed");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("line 1 column"), "{detail}");
            assert!(!detail.contains("s3cret"));
        }
    }
}

#[tokio::test]
async fn other_content_types_are_rejected() {
    let api = Api::new();
    for path in ["/v1/notifications", "/v1/notifications/batch"] {
        for content_type in [None, Some("text/plain"), Some("application/xml")] {
            let token = format!("Bearer shop:{}+write", NOW + 1);
            let request = Request::builder().method("POST").uri(path);
            let mut request = request.header("authorization", token);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let rejected = api.send(request.body(Body::from("{}")).unwrap()).await;
            rejected.problem(415, "content_type_unsupported");
        }
    }
    // A request without a body needs no content type.
    let plain = as_user("ada", "PATCH", "/v1/notifications/read-all");
    api.send(plain.body(Body::empty()).unwrap()).await.expect(StatusCode::OK);
}
