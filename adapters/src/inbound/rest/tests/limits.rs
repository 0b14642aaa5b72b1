use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use belfry_application::ports::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, ListFilter, Page, PageLimit,
    PortError,
};
use belfry_application::testing::{InMemoryStore, epoch, user};
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    Receipt, ReplayRange, Revision, Timestamp, UserId,
};
use futures_util::future::join_all;
use futures_util::{FutureExt as _, stream};
use http::{Request, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::{Api, Tokens, as_service, as_user};
use crate::inbound::rest::RestSettings;
use crate::limits::{Cost, PerSecond, UserWork};

#[tokio::test]
async fn body_over_the_size_limit_is_rejected() {
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
async fn incomplete_body_is_rejected() {
    let broken = stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    let request = as_service("/v1/notifications").body(Body::from_stream(broken)).unwrap();
    Api::new().send(request).await.problem(400, "body_unreadable");
}

#[tokio::test(start_paused = true)]
async fn request_over_the_time_limit_fails() {
    let request_timeout = Duration::from_secs(2);
    let settings = RestSettings { request_timeout, ..RestSettings::default() };
    let api = Api::build(Arc::new(StuckStore), Arc::new(Tokens), settings);
    let rejected = api.get("ada", "/v1/notifications/unread-count").await;
    rejected.problem(503, "timed_out");
    assert_eq!(rejected.header("retry-after"), Some("1"));

    let stalled = stream::pending::<Result<String, std::io::Error>>();
    let request = as_service("/v1/notifications").body(Body::from_stream(stalled)).unwrap();
    api.send(request).await.problem(503, "timed_out");
}

#[tokio::test(start_paused = true)]
async fn bodies_of_all_requests_have_a_limited_size() {
    let api = Api::new();
    let stalled_body = || Body::from_stream(stream::pending::<Result<String, std::io::Error>>());
    let create = |body: Body| as_service("/v1/notifications").body(body).unwrap();
    // A body of unknown length counts as 1 MiB, so four of them use up the limit.
    let mut stalled = Box::pin(join_all((0..4).map(|_| api.send(create(stalled_body())))));
    assert!(stalled.as_mut().now_or_never().is_none());
    let small_body = json!({ "userId": "ada", "title": "Hi" }).to_string();
    let mut small = Box::pin(api.send(create(small_body.into())));
    let sent = timeout(Duration::from_secs(1), small.as_mut()).await;
    assert!(sent.is_err(), "the request waits for memory");
    drop(stalled);
    assert_eq!(small.await.status, StatusCode::CREATED);

    let large = json!({ "userId": "ada", "title": "Hi", "x": "x".repeat(5_000_000) }).to_string();
    api.send(create(large.into())).await.problem(413, "body_too_large");
}

const COUNT: &str = "/v1/notifications/unread-count";

#[tokio::test]
async fn requests_are_limited_per_caller() {
    let api = Api::with_limits(1, 0);
    for user in ["ada", "bob"] {
        for _ in 0..2 {
            api.get(user, COUNT).await.expect(StatusCode::OK);
        }
        let rejected = api.get(user, COUNT).await;
        rejected.problem(429, "too_many_requests");
        assert_eq!(rejected.header("retry-after"), Some("1"));
    }
    // Writes have their own limit, and routes without authentication have none.
    for _ in 0..10 {
        api.create(json!({ "userId": "ada", "title": "Hi" })).await;
        api.get("ada", "/health/live").await.expect(StatusCode::OK);
        api.get("ada", "/nowhere").await.problem(404, "route_unknown");
    }
}

#[tokio::test]
async fn writes_are_limited_separately() {
    let api = Api::with_limits(2, 1);
    let draft = || json!({ "userId": "ada", "title": "Hi" });
    api.create(draft()).await;
    api.create(draft()).await;
    api.post("/v1/notifications", draft()).await.problem(429, "too_many_requests");
    // A write without the scope counts as an ordinary request.
    for status in [403, 403, 403, 403, 429] {
        let request = as_user("ada", "POST", "/v1/notifications").body(Body::empty()).unwrap();
        assert_eq!(api.send(request).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn list_is_charged_by_length_and_writes_are_not_charged_to_the_recipient() {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let work = UserWork::new(PerSecond::new(1), 8);
    let api = Api::with_work(store, work.clone());
    for _ in 0..100 {
        api.create(json!({ "userId": "ada", "title": "Hi" })).await;
    }
    // This costs one unit for the request and ten for the notifications. The budget is two units, and one
    // becomes available each second. So the next request, which costs one unit, is possible after at most ten
    // seconds.
    api.get("ada", "/v1/notifications?limit=100").await.expect(StatusCode::OK);
    let rejected = api.get("ada", COUNT).await;
    rejected.problem(429, "too_many_requests");
    let seconds: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((6..=10).contains(&seconds), "{seconds}");
    api.get("bob", COUNT).await.expect(StatusCode::OK);
    // The user's devices share the budget.
    assert!(work.acquire(&user("ada"), Cost::REQUEST).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn concurrent_store_operations_are_limited_per_user() {
    let work = UserWork::new(None, 2);
    let api = Api::with_work(Arc::new(StuckStore), work.clone());
    let stuck = join_all([(); 3].map(|()| api.get("ada", COUNT)));
    tokio::pin!(stuck);
    assert!(timeout(Duration::from_secs(1), &mut stuck).await.is_err());
    let next = work.acquire(&user("ada"), Cost::REQUEST).now_or_never();
    assert!(next.is_none(), "two requests use the store, and others wait");
    assert!(work.acquire(&user("bob"), Cost::REQUEST).now_or_never().is_some());
    // Waiting counts towards the time limit of a request.
    for response in stuck.await {
        response.problem(503, "timed_out");
    }
    assert!(work.acquire(&user("ada"), Cost::REQUEST).now_or_never().is_some());
}

#[tokio::test]
async fn invalid_token_does_not_use_up_the_limit_of_its_user() {
    let api = Api::with_limits(1, 0);
    let forged = || Request::get(COUNT).header("authorization", "Bearer ada:soon");
    for (request, status) in
        [(Request::get(COUNT), 401), (forged(), 401), (forged(), 429), (Request::get(COUNT), 429)]
    {
        let response = api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status.as_u16(), status);
    }
    api.get("ada", COUNT).await.expect(StatusCode::OK);
}

/// A store that never responds.
struct StuckStore;

#[async_trait::async_trait]
impl InboxRepository for StuckStore {
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
    async fn list(
        &self,
        _: &UserId,
        _: &ListFilter,
        _: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
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
    ) -> Result<Page<Notification>, PortError> {
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
