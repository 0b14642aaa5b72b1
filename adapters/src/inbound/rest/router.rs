use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::error;

use super::problem::{Problem, ProblemKind};
use super::request_telemetry::{RequestTelemetry, remove_malformed_request_id, request_telemetry};
use super::state::{RestParts, RestSettings, RestState};
use super::{cors, health, openapi};
use crate::limits::Limit;

/// All routes: `/v1/…`, `/health/…` and `/openapi.json`, under the base path. `/health/…` is also served
/// without the base path because orchestrators probe the port directly and not through the proxy.
///
/// The router has a fallback for unknown paths. A router that is merged with it must not have a fallback,
/// else axum panics.
pub fn router(parts: RestParts) -> Router {
    let settings = parts.settings.clone();
    let (routes, mut contract) = openapi::routes().split_for_parts();
    contract.servers = openapi::servers(&settings.base_path);
    let contract = Bytes::from(openapi::to_json(&contract));
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
        .fallback(async || Problem::from(ProblemKind::RouteUnknown))
        .method_not_allowed_fallback(async || Problem::from(ProblemKind::MethodNotAllowed))
        .with_state(RestState::from(parts));
    with_middleware(routes, &settings)
}

/// Adds the layers, outermost first. The three layers for the request id are outermost, so that every response has an
/// id, including those that other layers produce.
///
/// They are one layer for the router, because it allocates for each request and layer.
fn with_middleware(routes: Router, settings: &RestSettings) -> Router {
    // Neither shared caches nor browsers may store a user's notifications.
    let no_store = HeaderValue::from_static("no-store");
    let telemetry = RequestTelemetry::new(settings.base_path.clone());
    let layers = ServiceBuilder::new()
        .layer(from_fn(remove_malformed_request_id))
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(from_fn_with_state(telemetry, request_telemetry))
        .option_layer(cors::layer(&settings.cors))
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, no_store))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(from_fn_with_state(settings.request_timeout, enforce_timeout))
        .layer(DefaultBodyLimit::max(settings.max_body));
    routes.layer(layers)
}

async fn enforce_timeout(
    State(timeout): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    let response = tokio::time::timeout(timeout, next.run(request)).await;
    response.unwrap_or_else(|_| {
        Limit::RequestTime.record_exceeded();
        Problem::from(ProblemKind::TimedOut).into_response()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "CatchPanicLayer passes it by value")]
fn panic_response(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    error!(panic = text.unwrap_or("payload is not a string"), "request handler panicked");
    Problem::from(ProblemKind::Internal).into_response()
}
