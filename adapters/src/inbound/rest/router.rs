use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use belfry_application::use_cases::{
    CountUnread, DeleteNotification, GetNotification, ListInbox, MarkAllRead, MarkRead,
    RevokeTokens, SignIn,
};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::error;

use super::base_path::BasePath;
use super::cors::{self, Cors};
use super::health::{self, Readiness};
use super::intake::Intake;
use super::limits::RequestLimits;
use super::observe::{keep_sane_id, observe};
use super::openapi;
use super::problem::{Kind, Problem};
use crate::limits::Limit;

/// What the routes are made of.
#[derive(Clone, FromRef)]
pub struct RestParts {
    /// Who is calling.
    pub sign_in: SignIn,
    /// What services ask for.
    pub intake: Intake,
    /// What users ask for.
    pub stories: RestUseCases,
    /// What operators ask for.
    pub revoke_tokens: RevokeTokens,
    /// Whether this process can work.
    pub readiness: Readiness,
    /// How much each caller may ask for.
    pub limits: RequestLimits,
    /// How it is run.
    pub settings: RestSettings,
}

/// What users can ask for.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is the story that it is named after")]
pub struct RestUseCases {
    pub list: ListInbox,
    pub get: GetNotification,
    pub count_unread: CountUnread,
    pub mark_read: MarkRead,
    pub mark_all_read: MarkAllRead,
    pub delete: DeleteNotification,
}

/// How the routes are run.
#[derive(Debug, Clone)]
pub struct RestSettings {
    /// The largest body that is read, in bytes.
    pub max_body: usize,
    /// How long a request may take, its body included.
    pub request_timeout: Duration,
    /// Which web pages of other origins may call these routes.
    pub cors: Cors,
    /// The path that all routes are under.
    pub base_path: BasePath,
}

impl Default for RestSettings {
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            cors: Cors::default(),
            base_path: BasePath::default(),
        }
    }
}

/// All routes: `/v1/…`, `/health/…` and `/openapi.json`, under the base path. `/health/…` is also served
/// without it, as orchestrators probe the port and not the proxy.
///
/// Unknown paths are answered here too: other routers are merged into this one, without a fallback of
/// their own.
pub fn router(parts: RestParts) -> Router {
    let settings = parts.settings.clone();
    let (routes, mut contract) = openapi::routes().split_for_parts();
    contract.servers = openapi::servers(&settings.base_path);
    let contract = Bytes::from(openapi::text(&contract));
    let routes = routes.route(
        "/openapi.json",
        get(async move || ([(CONTENT_TYPE, "application/json")], contract)),
    );
    let mut routes = settings.base_path.nest(routes);
    if !settings.base_path.is_root() {
        routes = routes
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready));
    }
    let routes = routes
        .fallback(async || Problem::from(Kind::RouteUnknown))
        .method_not_allowed_fallback(async || Problem::from(Kind::MethodNotAllowed))
        .with_state(parts);
    layered(routes, &settings)
}

/// The innermost layer comes first. The request's id is outermost: every answer has it, also one
/// that a layer gives.
fn layered(routes: Router, settings: &RestSettings) -> Router {
    // One user's notifications are nothing for a cache that others share, nor for a browser's.
    let no_store = HeaderValue::from_static("no-store");
    routes
        .layer(DefaultBodyLimit::max(settings.max_body))
        .layer(from_fn_with_state(settings.request_timeout, in_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, no_store))
        .layer(option_layer(cors::layer(&settings.cors)))
        .layer(from_fn_with_state(settings.base_path.clone(), observe))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(from_fn(keep_sane_id))
}

async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(limit, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        Limit::RequestTime.record_exceeded();
        Problem::from(Kind::TimedOut).into_response()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the layer gives it away")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of no words");
    error!(panic = text, "request handler panicked");
    Problem::from(Kind::Internal).into_response()
}
