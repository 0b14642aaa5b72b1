//! The routes, through the whole router and without a network.

mod base_path;
mod creating;
mod inbox;
mod limits;
mod refusals;
mod seen;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use belfry_application::access::Access;
use belfry_application::ports::{
    BearerToken, Claims, InboxRepository, Scopes, TokenError, TokenVerifier,
};
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::testing::{
    FakeTokenVerifier, InMemoryStore, ManualClock, SequentialIds, epoch,
};
use belfry_application::use_cases::{
    CountUnread, CreateNotification, DeleteNotification, GetNotification, ListInbox, MarkAllRead,
    MarkRead, RevokeTokens, SignIn,
};
use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::limits::{PerSecond, UserWork};

use super::{Intake, Readiness, RequestLimits, RestParts, RestSettings, RestUseCases, router};

const NOW: i64 = 1_800_000_000_000;
/// [`NOW`] on the wire.
const NOW_TEXT: &str = "2027-01-15T08:00:00.000Z";

/// [`FakeTokenVerifier`] to which `+write` adds the scope.
struct Tokens;

#[async_trait]
impl TokenVerifier for Tokens {
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError> {
        let Some(plain) = token.reveal().strip_suffix("+write") else {
            return FakeTokenVerifier.verify(token).await;
        };
        let plain = BearerToken::parse(plain).unwrap().expect("a token");
        let claims = FakeTokenVerifier.verify(&plain).await?;
        Ok(Claims { scopes: Scopes::parse(Scopes::WRITE), ..claims })
    }
}

/// The service under test: a store that remembers, a clock that stands still, ids to foretell.
struct Api {
    router: Router,
    clock: Arc<ManualClock>,
    readiness: Readiness,
}

impl Api {
    fn new() -> Self {
        Self::with_settings(RestSettings::default())
    }

    fn with_settings(settings: RestSettings) -> Self {
        Self::over(Arc::new(InMemoryStore::new(epoch("e1"))), Arc::new(Tokens), settings)
    }

    /// Over a store that does as it is told.
    fn over_store(store: impl InboxRepository + 'static) -> Self {
        Self::over(Arc::new(store), Arc::new(Tokens), RestSettings::default())
    }

    /// Each caller may make so many requests a second, and so many that write.
    fn with_limits(requests: u32, writes: u32) -> Self {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let limits = RequestLimits::new(
            PerSecond::new(requests),
            PerSecond::new(writes),
            UserWork::new(None, 8),
        );
        Self::limited(store, Arc::new(Tokens), RestSettings::default(), limits)
    }

    /// Each user has so many units of work a second.
    fn with_work(store: Arc<dyn InboxRepository>, work: UserWork) -> Self {
        let limits = RequestLimits::new(None, None, work);
        Self::limited(store, Arc::new(Tokens), RestSettings::default(), limits)
    }

    fn over(
        store: Arc<dyn InboxRepository>,
        tokens: Arc<dyn TokenVerifier>,
        settings: RestSettings,
    ) -> Self {
        let limits = RequestLimits::new(None, None, UserWork::new(None, 8));
        Self::limited(store, tokens, settings, limits)
    }

    fn limited(
        store: Arc<dyn InboxRepository>,
        tokens: Arc<dyn TokenVerifier>,
        settings: RestSettings,
        limits: RequestLimits,
    ) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let readiness = Readiness::default();
        let revocations = Arc::new(InMemoryStore::new(epoch("e1")));
        let parts = RestParts {
            sign_in: SignIn::new(
                tokens,
                clock.clone(),
                Arc::new(RevokedTokens::empty()),
                Access::default(),
            ),
            intake: Intake {
                create: CreateNotification::new(store.clone()),
                ids: Arc::new(SequentialIds::default()),
                clock: clock.clone(),
            },
            stories: RestUseCases {
                list: ListInbox::new(store.clone()),
                get: GetNotification::new(store.clone()),
                count_unread: CountUnread::new(store.clone()),
                mark_read: MarkRead::new(store.clone(), clock.clone()),
                mark_all_read: MarkAllRead::new(store.clone(), clock.clone()),
                delete: DeleteNotification::new(store, clock.clone()),
            },
            revoke_tokens: RevokeTokens::new(revocations, clock.clone()),
            readiness: readiness.clone(),
            limits,
            settings,
        };
        Self { router: router(parts), clock, readiness }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// As that user, without a body.
    async fn ask(&self, user: &str, method: &str, path: &str) -> Answer {
        self.send(as_user(user, method, path).body(Body::empty()).unwrap()).await
    }

    async fn get(&self, user: &str, path: &str) -> Answer {
        self.ask(user, "GET", path).await
    }

    /// As a service that may write.
    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(as_service(path).body(body.to_string().into()).unwrap()).await
    }

    /// The same under an idempotency key.
    async fn post_once(&self, key: &str, path: &str, body: Value) -> Answer {
        let request = as_service(path).header("idempotency-key", key);
        self.send(request.body(body.to_string().into()).unwrap()).await
    }

    async fn create(&self, body: Value) -> Value {
        self.post("/v1/notifications", body).await.expect(StatusCode::CREATED)
    }
}

fn as_user(user: &str, method: &str, path: &str) -> Builder {
    let token = format!("Bearer {user}:{}", NOW + 60_000);
    Request::builder().method(method).uri(path).header("authorization", token)
}

fn as_service(path: &str) -> Builder {
    let token = format!("Bearer shop:{}+write", NOW + 60_000);
    let request = Request::builder().method("POST").uri(path).header("authorization", token);
    request.header("content-type", "application/json")
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Insists on a problem that is whole, and gives it.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!((self.status.as_u16(), &problem["code"]), (status, &json!(code)), "{self:?}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:belfry:problem:{code}"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert!(self.headers.contains_key("x-request-id"));
        problem
    }
}
