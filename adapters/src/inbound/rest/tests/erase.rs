use std::sync::Arc;

use axum::body::Body;
use belfry_application::ports::{Erasure, PortError};
use belfry_application::testing::{InMemoryStore, MockErasure, epoch};
use http::{Request, StatusCode};
use serde_json::json;

use super::{Api, NOW, RestSettings, TestResponse, Tokens};
use crate::inbound::rest::RequestLimits;
use crate::limits::{PerSecond, UserWork};

fn unlimited() -> RequestLimits {
    RequestLimits::new(None, None, UserWork::new(None, 8))
}

/// A router with the inboxes of `store`. They are erased only if `erasure` is the same store.
fn api(store: Arc<InMemoryStore>, erasure: Arc<dyn Erasure>, limits: RequestLimits) -> Api {
    Api::build_erasing(store, erasure, Arc::new(Tokens), RestSettings::default(), limits)
}

fn new_store() -> Arc<InMemoryStore> {
    Arc::new(InMemoryStore::new(epoch("e1")))
}

/// Sends a DELETE request as an operator who may erase users.
async fn erase(api: &Api, path: &str) -> TestResponse {
    let token = format!("Bearer operator:{}+erase", NOW + 60_000);
    let request = Request::delete(path).header("authorization", token);
    api.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn erased_user_has_an_empty_inbox_and_others_keep_theirs() {
    let store = new_store();
    let api = api(store.clone(), store, unlimited());
    for user in ["ada/1", "bob"] {
        api.create(json!({ "id": "n1", "userId": user, "title": "Hello" })).await;
    }
    for _ in 0..2 {
        let response = erase(&api, "/v1/users/ada%2F1").await;
        assert_eq!((response.status, response.body.len()), (StatusCode::NO_CONTENT, 0));
    }
    erase(&api, "/v1/users/nobody").await.expect(StatusCode::NO_CONTENT);
    let list = async |user: &str| api.get(user, "/v1/notifications").await.expect(StatusCode::OK);
    let page = list("ada/1").await;
    assert_eq!((&page["items"], &page["unreadCount"]), (&json!([]), &json!(0)));
    assert_eq!(list("bob").await["items"][0]["id"], "n1");

    let again = json!({ "id": "n1", "userId": "ada/1", "title": "A new beginning" });
    let created = api.create(again).await;
    assert!(created["revision"].as_u64() > page["revision"].as_u64(), "{created} {page}");
}

#[tokio::test]
async fn erasure_needs_its_scope_and_a_valid_id() {
    let store = new_store();
    let api = api(store.clone(), store, unlimited());
    let problem = api.call("ada", "DELETE", "/v1/users/ada").await;
    problem.problem(403, "scope_missing");
    assert!(problem.header("www-authenticate").unwrap().contains("users:erase"));
    let anonymous = Request::delete("/v1/users/ada").body(Body::empty()).unwrap();
    api.send(anonymous).await.problem(401, "token_missing");
    erase(&api, "/v1/users/a%20b").await.problem(400, "id_invalid");
}

#[tokio::test]
async fn failed_erasure_is_a_problem() {
    let mut erasure = MockErasure::new();
    erasure.expect_erase().returning(|_| Err(PortError::unavailable("the database is down")));
    let api = api(new_store(), Arc::new(erasure), unlimited());
    erase(&api, "/v1/users/ada").await.problem(503, "unavailable");
}

#[tokio::test]
async fn erasures_beyond_the_rate_are_rejected() {
    let store = new_store();
    let limits = RequestLimits::new(PerSecond::new(1), None, UserWork::new(None, 8));
    let api = api(store.clone(), store, limits);
    for _ in 0..2 {
        erase(&api, "/v1/users/ada").await.expect(StatusCode::NO_CONTENT);
    }
    erase(&api, "/v1/users/ada").await.problem(429, "too_many_requests");
}
