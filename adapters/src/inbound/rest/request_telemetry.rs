//! Request ids, spans, traces and metrics.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use belfry_application::trace::{self, TraceParent};
use http::{HeaderMap, HeaderName, Method};
use metrics::histogram;
use tracing::field::Empty;
use tracing::{Instrument as _, debug, info_span};

use super::base_path::BasePath;
use super::headers::{REQUEST_ID, TRACEPARENT};
use crate::transport::ClientAddress;

/// Removes a client's request id unless it is safe to log: one header of 1 to 128 visible ASCII characters.
/// An inner layer generates an id for requests without one.
pub(super) async fn remove_unsafe_request_id(mut request: Request, next: Next) -> Response {
    let ids: Vec<_> = request.headers().get_all(REQUEST_ID).iter().collect();
    let is_safe = matches!(&*ids, [id] if (1..=128).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic));
    if !is_safe {
        request.headers_mut().remove(REQUEST_ID);
    }
    next.run(request).await
}

/// Runs the request in a span and in the caller's trace, and records its duration. The span has the route
/// instead of the path, and neither the query nor a token. `user` is recorded after authentication.
pub(super) async fn request_telemetry(
    State(base_path): State<BasePath>,
    request: Request,
    next: Next,
) -> Response {
    let route = route(&request, &base_path);
    let method = method_label(request.method());
    let trace = header_text(request.headers(), &TRACEPARENT);
    // Only if well-formed: clients could inject text into the log otherwise.
    let trace = trace.and_then(|raw| TraceParent::parse(raw).ok());
    let span = info_span!(
        "http",
        method,
        route,
        request_id = header_text(request.headers(), &REQUEST_ID),
        trace = trace.as_ref().map(TraceParent::as_str),
        client = request.extensions().get::<ClientAddress>().map(|it| it.0.to_string()),
        user = Empty,
        status = Empty,
    );
    let started = Instant::now();

    let response = trace::scope(trace, next.run(request)).instrument(span.clone()).await;

    let status = response.status();
    let seconds = started.elapsed().as_secs_f64();
    span.record("status", status.as_u16());
    span.in_scope(|| debug!(seconds, "request completed"));
    let labels =
        [("route", route), ("method", method.to_owned()), ("status", status.as_str().to_owned())];
    histogram!("belfry_http_request_seconds", &labels).record(seconds);
    response
}

/// The route's pattern without the base path, so that dashboards stay valid when the base path changes.
/// Unknown paths are all `unmatched`: clients cannot create labels.
fn route(request: &Request, base_path: &BasePath) -> String {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = matched.map(|it| it.strip_prefix(base_path.as_str()).unwrap_or(it));
    route.unwrap_or("unmatched").to_owned()
}

/// Unknown methods are all `other`: clients cannot create labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
