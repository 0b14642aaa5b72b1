use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;

use super::Api;
use crate::inbound::rest::{Cors, RestSettings};

fn under_notify() -> Api {
    let base_path = "/notify".parse().unwrap();
    Api::with_settings(RestSettings { base_path, ..RestSettings::default() })
}

fn anonymous(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn location_of_a_created_notification_has_the_base_path() {
    let api = under_notify();
    let created =
        api.post("/notify/v1/notifications", json!({ "userId": "ada", "title": "Hi" })).await;
    created.expect(StatusCode::CREATED);
    assert_eq!(created.header("location"), Some("/notify/v1/notifications/id-1"));
    let found = api.get("ada", created.header("location").unwrap()).await;
    assert_eq!(found.expect(StatusCode::OK)["id"], "id-1");
}

#[tokio::test]
async fn only_health_is_also_served_without_the_base_path() {
    let api = under_notify();
    for path in ["/health/live", "/health/ready", "/notify/health/live", "/notify/health/ready"] {
        api.send(anonymous(path)).await.expect(StatusCode::OK);
    }
    for path in ["/v1/notifications", "/openapi.json", "/", "/notify", "/notify/", "/notifyv1"] {
        api.send(anonymous(path)).await.problem(404, "route_unknown");
    }
    api.send(anonymous("/notify/unknown")).await.problem(404, "route_unknown");
    api.call("ada", "DELETE", "/notify/v1/notifications").await.problem(405, "method_not_allowed");
    api.call("ada", "POST", "/health/live").await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn contract_names_the_base_path_as_its_server() {
    let contract = under_notify().send(anonymous("/notify/openapi.json")).await.json();
    assert_eq!(contract["servers"], json!([{ "url": "/notify" }]));
    let contract = Api::new().send(anonymous("/openapi.json")).await.json();
    assert_eq!(contract.get("servers"), None);
}

#[tokio::test]
async fn preflight_succeeds_under_the_base_path() {
    let app = "https://app.example.org";
    let cors = Cors { origins: vec![app.parse().unwrap()], credentials: true, headers: vec![] };
    let base_path = "/notify".parse().unwrap();
    let api = Api::with_settings(RestSettings { cors, base_path, ..RestSettings::default() });
    let preflight = Request::options("/notify/v1/notifications")
        .header("origin", app)
        .header("access-control-request-method", "POST");
    let response = api.send(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.header("access-control-allow-origin"), Some(app));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
}
