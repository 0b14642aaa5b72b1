//! Tests of the whole router, without a network.

mod base_path;
mod create;
mod erase;
mod ids;
mod inbox;
mod integers;
mod limits;
mod rejections;
mod routes;
mod telemetry;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use belfry_application::access::Access;
use belfry_application::ports::{
    BearerToken, Claims, Erasure, InboxRepository, KeyFingerprint, Scopes, TokenError,
    TokenVerifier,
};
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::testing::{
    FakeTokenVerifier, InMemoryStore, ManualClock, SequentialIds, epoch,
};
use belfry_application::use_cases::{
    CountUnread, CreateNotification, DeleteNotification, EraseUser, GetNotification, ListInbox,
    MarkAllRead, MarkRead, RevokeTokens, SignIn,
};
use belfry_domain::LinkSchemes;
use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::limits::{PerSecond, UserWork};

use super::{
    DraftFactory, Readiness, RequestLimits, RestParts, RestSettings, RestUseCases, router,
};

/// In milliseconds since 1970.
const NOW: i64 = 1_800_000_000_000;
/// [`NOW`] in JSON.
const NOW_TEXT: &str = "2027-01-15T08:00:00.000Z";

/// [`FakeTokenVerifier`], where the suffixes `+write`, `+erase` and `+revoke` add the scopes to create
/// notifications, to erase users and to revoke tokens.
struct Tokens;

#[async_trait]
impl TokenVerifier for Tokens {
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError> {
        let (plain, scope) = match token.reveal().split_once('+') {
            Some((plain, "write")) => (plain, Scopes::WRITE),
            Some((plain, "erase")) => (plain, Scopes::ERASE),
            Some((plain, "revoke")) => (plain, Scopes::REVOKE),
            _ => return FakeTokenVerifier.verify(token).await,
        };
        let plain = BearerToken::parse(plain).unwrap().expect("a token");
        let claims = FakeTokenVerifier.verify(&plain).await?;
        Ok(Claims { scopes: Scopes::parse(scope), ..claims })
    }

    fn accepted_keys(&self) -> HashSet<KeyFingerprint> {
        FakeTokenVerifier.accepted_keys()
    }
}

/// The router under test, with an in-memory store, a manual clock and sequential ids.
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
        Self::build(Arc::new(InMemoryStore::new(epoch("e1"))), Arc::new(Tokens), settings)
    }

    fn with_store(store: impl InboxRepository + 'static) -> Self {
        Self::build(Arc::new(store), Arc::new(Tokens), RestSettings::default())
    }

    /// `requests` and `writes` are rates per second and caller; 0 means no limit.
    fn with_limits(requests: u32, writes: u32) -> Self {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let limits = RequestLimits::new(
            PerSecond::new(requests),
            PerSecond::new(writes),
            UserWork::new(None, 8),
        );
        Self::build_limited(store, Arc::new(Tokens), RestSettings::default(), limits)
    }

    fn with_work(store: Arc<dyn InboxRepository>, work: UserWork) -> Self {
        let limits = RequestLimits::new(None, None, work);
        Self::build_limited(store, Arc::new(Tokens), RestSettings::default(), limits)
    }

    fn build(
        store: Arc<dyn InboxRepository>,
        tokens: Arc<dyn TokenVerifier>,
        settings: RestSettings,
    ) -> Self {
        let limits = RequestLimits::new(None, None, UserWork::new(None, 8));
        Self::build_limited(store, tokens, settings, limits)
    }

    fn build_limited(
        store: Arc<dyn InboxRepository>,
        tokens: Arc<dyn TokenVerifier>,
        settings: RestSettings,
        limits: RequestLimits,
    ) -> Self {
        Self::build_erasing(
            store,
            Arc::new(InMemoryStore::new(epoch("e1"))),
            tokens,
            settings,
            limits,
        )
    }

    fn build_erasing(
        store: Arc<dyn InboxRepository>,
        erasure: Arc<dyn Erasure>,
        tokens: Arc<dyn TokenVerifier>,
        settings: RestSettings,
        limits: RequestLimits,
    ) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        Self::of(parts(store, erasure, tokens, settings, limits, &clock), clock)
    }

    /// A router without use cases for inboxes, because another service keeps them.
    fn in_forward_mode() -> Self {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let limits = RequestLimits::new(None, None, UserWork::new(None, 8));
        let clock = Arc::new(ManualClock::at(NOW));
        let settings = RestSettings::default();
        let parts = parts(store.clone(), store, Arc::new(Tokens), settings, limits, &clock);
        Self::of(RestParts { inbox: None, ..parts }, clock)
    }

    fn of(parts: RestParts, clock: Arc<ManualClock>) -> Self {
        let readiness = parts.readiness.clone();
        Self { router: router(parts), clock, readiness }
    }

    async fn send(&self, request: Request<Body>) -> TestResponse {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        TestResponse { status: head.status, headers: head.headers, body }
    }

    /// Sends a request without a body as `user`.
    async fn call(&self, user: &str, method: &str, path: &str) -> TestResponse {
        self.send(as_user(user, method, path).body(Body::empty()).unwrap()).await
    }

    async fn get(&self, user: &str, path: &str) -> TestResponse {
        self.call(user, "GET", path).await
    }

    /// Posts the body as a service that may create notifications.
    async fn post(&self, path: &str, body: Value) -> TestResponse {
        self.send(as_service(path).body(body.to_string().into()).unwrap()).await
    }

    /// Like [`Self::post`], with an idempotency key.
    async fn post_with_key(&self, key: &str, path: &str, body: Value) -> TestResponse {
        let request = as_service(path).header("idempotency-key", key);
        self.send(request.body(body.to_string().into()).unwrap()).await
    }

    async fn create(&self, body: Value) -> Value {
        self.post("/v1/notifications", body).await.expect(StatusCode::CREATED)
    }
}

fn parts(
    store: Arc<dyn InboxRepository>,
    erasure: Arc<dyn Erasure>,
    tokens: Arc<dyn TokenVerifier>,
    settings: RestSettings,
    limits: RequestLimits,
    clock: &Arc<ManualClock>,
) -> RestParts {
    let revocations = Arc::new(InMemoryStore::new(epoch("e1")));
    let revoked = Arc::new(RevokedTokens::empty());
    RestParts {
        sign_in: SignIn::new(tokens, clock.clone(), revoked.clone(), Access::default()),
        drafts: DraftFactory {
            ids: Arc::new(SequentialIds::default()),
            clock: clock.clone(),
            links: LinkSchemes::default(),
        },
        inbox: Some(Arc::new(RestUseCases {
            create: CreateNotification::new(store.clone()),
            list: ListInbox::new(store.clone()),
            get: GetNotification::new(store.clone()),
            count_unread: CountUnread::new(store.clone()),
            mark_read: MarkRead::new(store.clone(), clock.clone()),
            mark_all_read: MarkAllRead::new(store.clone(), clock.clone()),
            delete: DeleteNotification::new(store, clock.clone()),
        })),
        revoke_tokens: RevokeTokens::new(revocations, revoked, clock.clone()),
        erase_user: EraseUser::new(erasure),
        readiness: Readiness::default(),
        limits,
        settings: Arc::new(settings),
    }
}

/// A request of this user. The token has the form of [`FakeTokenVerifier`]: the user and the expiry in
/// milliseconds.
fn as_user(user: &str, method: &str, path: &str) -> Builder {
    let token = format!("Bearer {user}:{}", NOW + 60_000);
    Request::builder().method(method).uri(path).header("authorization", token)
}

fn as_service(path: &str) -> Builder {
    with_scope("write", path)
}

fn as_operator(path: &str) -> Builder {
    with_scope("revoke", path)
}

/// A POST request of a service whose token has the scope. `scope` is a suffix of [`Tokens`].
fn with_scope(scope: &str, path: &str) -> Builder {
    let token = format!("Bearer shop:{}+{scope}", NOW + 60_000);
    let request = Request::builder().method("POST").uri(path).header("authorization", token);
    request.header("content-type", "application/json")
}

#[derive(Debug, Clone)]
struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl TestResponse {
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

    /// Checks that the response is a complete problem with this status and code. Returns the body.
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
