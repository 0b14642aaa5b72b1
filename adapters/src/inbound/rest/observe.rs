//! What is seen of each request: its id, its span, its place in a trace, its time.

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
use crate::transport::ClientAddress;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Takes a request's own id away unless it is one that can stand in a log: up to 128 visible ASCII
/// characters. Without one it gets ours.
pub(super) async fn keep_sane_id(mut request: Request, next: Next) -> Response {
    let ids: Vec<_> = request.headers().get_all(REQUEST_ID).iter().collect();
    let sane = matches!(&*ids, [one] if (1..=128).contains(&one.len())
        && one.as_bytes().iter().all(u8::is_ascii_graphic));
    if !sane {
        request.headers_mut().remove(REQUEST_ID);
    }
    next.run(request).await
}

/// Gives the work its span and its trace, and measures it. The span names the route and not the
/// path, the user once known, and neither the query nor any token.
pub(super) async fn observe(
    State(base_path): State<BasePath>,
    request: Request,
    next: Next,
) -> Response {
    let route = route(&request, &base_path);
    let method = name(request.method());
    let trace = text(request.headers(), &TRACEPARENT);
    // Only one that is well-formed: anything else could put words into our log.
    let trace = trace.and_then(|raw| TraceParent::parse(raw).ok());
    let span = info_span!(
        "http",
        method,
        route,
        request_id = text(request.headers(), &REQUEST_ID),
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
    span.in_scope(|| debug!(seconds, "answered"));
    let labels =
        [("route", route), ("method", method.to_owned()), ("status", status.as_str().to_owned())];
    histogram!("belfry_http_request_seconds", &labels).record(seconds);
    response
}

/// The route as it was declared: its own name for all ids, and one for all that is unknown, so that
/// no client can make up labels. The base path is left out: dashboards stay valid when it changes.
fn route(request: &Request, base_path: &BasePath) -> String {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = matched.map(|it| it.strip_prefix(base_path.as_str()).unwrap_or(it));
    route.unwrap_or("unmatched").to_owned()
}

fn name(method: &Method) -> &'static str {
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

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
