use std::sync::Arc;

use axum::body::Body;
use belfry_application::ports::{PortError, TokenError};
use belfry_application::testing::{MockInboxRepository, MockTokenVerifier};
use belfry_domain::Draft;
use http::{Request, StatusCode};
use serde_json::json;

use super::{Answer, Api, NOW, as_service, as_user};
use crate::inbound::rest::RestSettings;

/// Every route that asks who is calling.
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

async fn with_tokens(api: &Api, method: &str, path: &str, tokens: &[&str]) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request =
        tokens.iter().fold(request, |request, token| request.header("authorization", *token));
    api.send(request.body(Body::from("{}")).unwrap()).await
}

#[tokio::test]
async fn every_route_asks_who_is_calling() {
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
            let refused = with_tokens(&api, method, path, tokens).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(refused.header("www-authenticate"), Some(challenge), "{tokens:?}");
            if method != "HEAD" {
                let problem = refused.problem(401, code);
                assert!(!problem.to_string().contains("s3cret"));
            }
        }
    }
}

#[tokio::test]
async fn writing_needs_the_scope() {
    let api = Api::new();
    for path in ["/v1/notifications", "/v1/notifications/batch"] {
        let refused = api.ask("ada", "POST", path).await;
        refused.problem(403, "scope_missing");
        let challenge = refused.header("www-authenticate").unwrap();
        assert_eq!(challenge, r#"Bearer error="insufficient_scope", scope="notifications:write""#);
    }
}

#[tokio::test]
async fn who_is_calling_is_settled_before_anything_is_read() {
    let api = Api::new();
    let not_json = Request::builder().method("POST").uri("/v1/notifications");
    let refused = api.send(not_json.body(Body::from("not json")).unwrap()).await;
    refused.problem(401, "token_missing");
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_now_is_worth_another_try() {
    for path in ["/v1/notifications", "/v1/notifications/unread-count"] {
        let mut tokens = MockTokenVerifier::new();
        let down = || TokenError::Port(PortError::unavailable("password=s3cret"));
        tokens.expect_verify().returning(move |_| Err(down()));
        let store = Arc::new(MockInboxRepository::new());
        let api = Api::over(store, Arc::new(tokens), RestSettings::default());
        let refused = api.get("ada", path).await;
        let problem = refused.problem(503, "unavailable");
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert!(!problem.to_string().contains("s3cret"));
    }
}

/// A store in which nothing works.
fn broken(error: fn() -> PortError) -> MockInboxRepository {
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

async fn all_routes(api: &Api) -> Vec<Answer> {
    let draft = json!({ "userId": "ada", "title": "Hi" });
    let batch = json!({ "notifications": [draft] });
    let mut answers = vec![
        api.post("/v1/notifications", draft.clone()).await,
        api.post_once("k1", "/v1/notifications", draft).await,
        api.post("/v1/notifications/batch", batch).await,
    ];
    for (method, path) in GUARDED {
        let writes = path.ends_with("batch") || (method, path) == ("POST", "/v1/notifications");
        if !writes && method != "HEAD" && !path.contains('?') {
            answers.push(api.ask("ada", method, path).await);
        }
    }
    answers
}

#[tokio::test]
async fn an_outage_is_said_as_such_on_every_route() {
    let api = Api::over_store(broken(|| PortError::unavailable("host=db password=s3cret")));
    for answer in all_routes(&api).await {
        let problem = answer.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(!problem.to_string().contains("s3cret"));
    }
}

#[tokio::test]
async fn what_a_store_rejects_is_our_mistake() {
    let api = Api::over_store(broken(|| PortError::rejected("constraint s3cret")));
    for answer in all_routes(&api).await {
        let problem = answer.problem(500, "internal");
        assert!(!problem.to_string().contains("s3cret"));
    }
}

#[tokio::test]
async fn what_is_nowhere_is_said_to_be_nowhere() {
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
async fn a_method_that_is_not_a_routes_own_is_told_those_that_are() {
    let api = Api::new();
    for (method, path, allowed) in [
        ("PUT", "/v1/notifications", &["GET", "HEAD", "POST"][..]),
        ("DELETE", "/v1/notifications", &["GET", "HEAD", "POST"]),
        ("GET", "/v1/notifications/batch", &["POST"]),
        ("DELETE", "/v1/notifications/unread-count", &["GET", "HEAD"]),
        ("GET", "/v1/notifications/read-all", &["PATCH", "POST", "PUT"]),
        ("PATCH", "/v1/notifications/n1", &["DELETE", "GET", "HEAD"]),
        ("GET", "/v1/notifications/n1/read", &["PATCH", "POST", "PUT"]),
        ("OPTIONS", "/v1/notifications/n1/read", &["PATCH", "POST", "PUT"]),
        ("POST", "/health/live", &["GET", "HEAD"]),
        ("POST", "/openapi.json", &["GET", "HEAD"]),
    ] {
        let refused = api.ask("ada", method, path).await;
        refused.problem(405, "method_not_allowed");
        let mut told: Vec<_> = refused.header("allow").unwrap().split(',').collect();
        told.sort_unstable();
        assert_eq!(told, allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_where_it_goes_wrong() {
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
async fn a_body_says_that_it_is_json() {
    let api = Api::new();
    for path in ["/v1/notifications", "/v1/notifications/batch"] {
        for content_type in [None, Some("text/plain"), Some("application/xml")] {
            let token = format!("Bearer shop:{}+write", NOW + 1);
            let request = Request::builder().method("POST").uri(path);
            let mut request = request.header("authorization", token);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let refused = api.send(request.body(Body::from("{}")).unwrap()).await;
            refused.problem(415, "content_type_unsupported");
        }
    }
    // What has no body need not say what it is.
    let plain = as_user("ada", "PATCH", "/v1/notifications/read-all");
    api.send(plain.body(Body::empty()).unwrap()).await.expect(StatusCode::OK);
}
