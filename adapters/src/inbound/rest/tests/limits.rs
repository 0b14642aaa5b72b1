use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use belfry_application::ports::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, ListFilter, Page, PageLimit,
    PortError,
};
use belfry_application::testing::{InMemoryStore, MockInboxRepository, epoch, user};
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    Receipt, ReplayRange, Revision, Timestamp, UserId,
};
use futures_util::{FutureExt as _, stream};
use http::{Request, StatusCode};
use serde_json::json;

use super::{Api, Tokens, as_service, as_user};
use crate::inbound::rest::{Cors, RestSettings};
use crate::limits::{Cost, PerSecond, UserWork};

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let api = Api::with_settings(RestSettings { max_body: 1_000, ..RestSettings::default() });
    let draft = |length: usize| {
        let text = json!({ "userId": "ada", "title": "Hi" }).to_string();
        text.clone() + &" ".repeat(length - text.len())
    };
    for (length, status) in [(1_000, StatusCode::CREATED), (1_001, StatusCode::PAYLOAD_TOO_LARGE)] {
        let request = as_service("/v1/notifications").body(draft(length).into()).unwrap();
        assert_eq!(api.send(request).await.status, status);
    }
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(100)));
    let request = as_service("/v1/notifications").body(Body::from_stream(endless)).unwrap();
    api.send(request).await.problem(413, "body_too_large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let broken = stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    let request = as_service("/v1/notifications").body(Body::from_stream(broken)).unwrap();
    Api::new().send(request).await.problem(400, "body_unreadable");
}

#[tokio::test(start_paused = true)]
async fn a_request_takes_no_longer_than_it_may() {
    let patience = Duration::from_secs(2);
    let settings = RestSettings { request_timeout: patience, ..RestSettings::default() };
    let api = Api::over(Arc::new(Stuck), Arc::new(Tokens), settings);
    let refused = api.get("ada", "/v1/notifications/unread-count").await;
    refused.problem(503, "timed_out");
    assert_eq!(refused.header("retry-after"), Some("1"));

    let drop_by_drop = stream::pending::<Result<String, std::io::Error>>();
    let request = as_service("/v1/notifications").body(Body::from_stream(drop_by_drop)).unwrap();
    api.send(request).await.problem(503, "timed_out");
}

#[tokio::test]
async fn a_panic_fails_its_own_request_only() {
    let mut store = MockInboxRepository::new();
    store.expect_state().returning(|_| panic!("s3cret"));
    let api = Api::over_store(store);
    let problem = api.get("ada", "/v1/notifications/unread-count").await.problem(500, "internal");
    assert!(!problem.to_string().contains("s3cret"));
    api.get("ada", "/health/live").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn health_says_whether_this_process_lives_and_can_work() {
    let api = Api::new();
    let ask = |path: &str| api.send(Request::get(path).body(Body::empty()).unwrap());
    let (database, amqp) = (api.readiness.needs("database"), api.readiness.needs("amqp"));
    database.up();
    let live = ask("/health/live").await.expect(StatusCode::OK);
    assert_eq!(live, json!({ "status": "live" }));
    let not_ready = ask("/health/ready").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    let expected = json!({ "status": "not_ready", "checks": { "amqp": "down", "database": "up" } });
    assert_eq!(not_ready, expected);
    amqp.up();
    let ready = ask("/health/ready").await.expect(StatusCode::OK);
    let expected = json!({ "status": "ready", "checks": { "amqp": "up", "database": "up" } });
    assert_eq!(ready, expected);
}

#[tokio::test]
async fn the_contract_can_be_read_by_anybody() {
    let request = Request::get("/openapi.json").body(Body::empty()).unwrap();
    let answer = Api::new().send(request).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.expect(StatusCode::OK)["openapi"], "3.1.0");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let ours = "https://app.example.org";
    let preflight = |origin: &str| {
        let request = Request::builder().method("OPTIONS").uri("/v1/notifications");
        let request = request.header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "authorization");
        request.header("origin", origin).body(Body::empty()).unwrap()
    };
    let closed = Api::new().send(preflight(ours)).await;
    assert_eq!(closed.header("access-control-allow-origin"), None);

    let cors = Cors { origins: vec![ours.parse().unwrap()], ..Cors::default() };
    let api = Api::with_settings(RestSettings { cors, ..RestSettings::default() });
    let answer = api.send(preflight(ours)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("access-control-allow-origin"), Some(ours));
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("idempotency-key") && headers.contains("authorization"));
    let other = api.send(preflight("https://evil.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), None);

    let refused = Request::get("/v1/notifications").header("origin", ours);
    let refused = api.send(refused.body(Body::empty()).unwrap()).await;
    refused.problem(401, "token_missing");
    assert_eq!(refused.header("access-control-allow-origin"), Some(ours), "it can be read");
}

const COUNT: &str = "/v1/notifications/unread-count";

#[tokio::test]
async fn each_caller_has_so_many_requests_and_another_one_has_theirs() {
    let api = Api::with_limits(1, 0);
    for user in ["ada", "bob"] {
        for _ in 0..2 {
            api.get(user, COUNT).await.expect(StatusCode::OK);
        }
        let refused = api.get(user, COUNT).await;
        refused.problem(429, "too_many_requests");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    // A service has its own for what it writes, and what needs no token is for everybody.
    for _ in 0..10 {
        api.create(json!({ "userId": "ada", "title": "Hi" })).await;
        api.get("ada", "/health/live").await.expect(StatusCode::OK);
        api.get("ada", "/nowhere").await.problem(404, "route_unknown");
    }
}

#[tokio::test]
async fn what_is_written_has_a_limit_of_its_own() {
    let api = Api::with_limits(2, 1);
    let draft = || json!({ "userId": "ada", "title": "Hi" });
    api.create(draft()).await;
    api.create(draft()).await;
    api.post("/v1/notifications", draft()).await.problem(429, "too_many_requests");
    // Without the scope nothing is written: it is one of the caller's other requests.
    for status in [403, 403, 403, 403, 429] {
        let request = as_user("ada", "POST", "/v1/notifications").body(Body::empty()).unwrap();
        assert_eq!(api.send(request).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn a_list_costs_by_its_length_and_a_service_that_writes_costs_its_user_nothing() {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let work = UserWork::new(PerSecond::new(1), 8);
    let api = Api::with_work(store, work.clone());
    for _ in 0..100 {
        api.create(json!({ "userId": "ada", "title": "Hi" })).await;
    }
    // One unit for the request and ten for what it lists, of two that may be spent at once.
    api.get("ada", "/v1/notifications?limit=100").await.expect(StatusCode::OK);
    let refused = api.get("ada", COUNT).await;
    refused.problem(429, "too_many_requests");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((6..=10).contains(&seconds), "{seconds}");
    api.get("bob", COUNT).await.expect(StatusCode::OK);
    // The devices of a user have the same budget.
    assert!(work.acquire(&user("ada"), Cost::REQUEST).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn one_user_cannot_have_more_requests_in_the_store_than_may() {
    let work = UserWork::new(None, 2);
    let api = Api::with_work(Arc::new(Stuck), work.clone());
    let stuck = futures_util::future::join_all([(); 3].map(|()| api.get("ada", COUNT)));
    tokio::pin!(stuck);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut stuck).await.is_err());
    let of_ada = work.acquire(&user("ada"), Cost::REQUEST).now_or_never();
    assert!(of_ada.is_none(), "two are in the store, one waits");
    assert!(work.acquire(&user("bob"), Cost::REQUEST).now_or_never().is_some());
    // All of them take no longer than a request may.
    for answer in stuck.await {
        answer.problem(503, "timed_out");
    }
    assert!(work.acquire(&user("ada"), Cost::REQUEST).now_or_never().is_some());
}

#[tokio::test]
async fn whoever_shows_no_good_token_takes_nothing_from_the_user_whom_it_names() {
    let api = Api::with_limits(1, 0);
    let forged = || Request::get(COUNT).header("authorization", "Bearer ada:soon");
    for (request, status) in
        [(Request::get(COUNT), 401), (forged(), 401), (forged(), 429), (Request::get(COUNT), 429)]
    {
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status);
    }
    api.get("ada", COUNT).await.expect(StatusCode::OK);
}

/// A store that never answers.
struct Stuck;

#[async_trait::async_trait]
impl InboxRepository for Stuck {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        std::future::pending().await
    }
    async fn create(&self, _: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        std::future::pending().await
    }
    async fn create_once(
        &self,
        _: &IdempotencyKey,
        _: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError> {
        std::future::pending().await
    }
    async fn mark_read(
        &self,
        _: &UserId,
        _: &[NotificationId],
        _: Timestamp,
    ) -> Result<Marked, PortError> {
        std::future::pending().await
    }
    async fn mark_all_read(
        &self,
        _: &UserId,
        _: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        std::future::pending().await
    }
    async fn delete(
        &self,
        _: &UserId,
        _: &[NotificationId],
        _: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        std::future::pending().await
    }
    async fn get(&self, _: &UserId, _: &NotificationId) -> Result<Option<Notification>, PortError> {
        std::future::pending().await
    }
    async fn list(&self, _: &UserId, _: &ListFilter, _: PageLimit) -> Result<Page, PortError> {
        std::future::pending().await
    }
    async fn state(&self, _: &UserId) -> Result<InboxState, PortError> {
        std::future::pending().await
    }
    async fn history(&self, _: &UserId, _: Revision, _: usize) -> Result<History, PortError> {
        std::future::pending().await
    }
    async fn created_in(
        &self,
        _: &UserId,
        _: ReplayRange,
        _: PageLimit,
    ) -> Result<Page, PortError> {
        std::future::pending().await
    }
    async fn changed_in(
        &self,
        _: &UserId,
        _: ReplayRange,
        _: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        std::future::pending().await
    }
}
