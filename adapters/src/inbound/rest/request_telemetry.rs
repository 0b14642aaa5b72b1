//! Request ids, spans, traces and metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use belfry_application::trace::{self, TraceParent};
use http::{HeaderMap, HeaderName, Method};
use metrics::{Histogram, Unit, describe_histogram, histogram};
use parking_lot::RwLock;
use tracing::field::Empty;
use tracing::{Instrument as _, debug, info_span};

use super::base_path::BasePath;
use super::headers::{REQUEST_ID, TRACEPARENT};
use crate::transport::ClientAddress;

pub(crate) const REQUEST_DURATION: &str = "belfry_http_request_duration_seconds";
/// A summary of the same durations. Its quantiles cannot be aggregated over nodes, so [`REQUEST_DURATION`]
/// replaces it. The next release removes it.
const REQUEST_SUMMARY: &str = "belfry_http_request_seconds";

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "Duration of REST requests, from the received head to the response."
    );
    describe_histogram!(
        REQUEST_SUMMARY,
        Unit::Seconds,
        "Deprecated, removed with the next release: use belfry_http_request_duration_seconds."
    );
}

/// The state of the middleware [`request_telemetry`].
#[derive(Clone)]
pub(super) struct RequestTelemetry {
    base_path: BasePath,
    recorders: Arc<RwLock<DurationRecorders>>,
}

impl RequestTelemetry {
    pub(super) fn new(base_path: BasePath) -> Self {
        Self { base_path, recorders: Arc::default() }
    }

    fn record(&self, route: &str, method: &'static str, status: u16, seconds: f64) {
        if let Some(recorder) = self.recorders.read().find(route, method, status) {
            return recorder.record(seconds);
        }
        let recorder = DurationRecorder::register(route, method, status);
        recorder.record(seconds);
        self.recorders.write().insert(route, method, status, recorder);
    }
}

/// The registered metrics by route, then by method and status. Their number is limited, because clients
/// cannot create labels.
#[derive(Default)]
struct DurationRecorders(HashMap<String, HashMap<(&'static str, u16), DurationRecorder>>);

impl DurationRecorders {
    fn find(&self, route: &str, method: &'static str, status: u16) -> Option<&DurationRecorder> {
        self.0.get(route)?.get(&(method, status))
    }

    fn insert(
        &mut self,
        route: &str,
        method: &'static str,
        status: u16,
        recorder: DurationRecorder,
    ) {
        self.0.entry(route.to_owned()).or_default().insert((method, status), recorder);
    }
}

/// Both metrics with the same labels.
struct DurationRecorder {
    histogram: Histogram,
    summary: Histogram,
}

impl DurationRecorder {
    fn register(route: &str, method: &'static str, status: u16) -> Self {
        let labels = [
            ("route", route.to_owned()),
            ("method", method.to_owned()),
            ("status", status.to_string()),
        ];
        Self {
            histogram: histogram!(REQUEST_DURATION, &labels),
            summary: histogram!(REQUEST_SUMMARY, &labels),
        }
    }

    fn record(&self, seconds: f64) {
        self.histogram.record(seconds);
        self.summary.record(seconds);
    }
}

/// Removes a client's request id unless it is safe to log: one header of 1 to 128 visible ASCII characters.
/// An inner layer generates an id for requests without one.
pub(super) async fn remove_malformed_request_id(mut request: Request, next: Next) -> Response {
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
    State(telemetry): State<RequestTelemetry>,
    request: Request,
    next: Next,
) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = route(matched.as_ref(), &telemetry.base_path);
    let method = method_label(request.method());
    let trace = header_text(request.headers(), &TRACEPARENT);
    // A malformed value is dropped, because it could inject text into the log.
    let trace = trace.and_then(|raw| TraceParent::parse(raw).ok());
    let span = info_span!(
        "http",
        method,
        route,
        request_id = header_text(request.headers(), &REQUEST_ID),
        trace = trace.as_ref().map(TraceParent::as_str),
        client = request.extensions().get::<ClientAddress>().map(|address| address.0.to_string()),
        user = Empty,
        status = Empty,
    );
    let started = Instant::now();

    let response = trace::scope(trace, next.run(request)).instrument(span.clone()).await;

    let status = response.status();
    let seconds = started.elapsed().as_secs_f64();
    span.record("status", status.as_u16());
    span.in_scope(|| debug!(seconds, "request completed"));
    telemetry.record(route, method, status.as_u16(), seconds);
    response
}

/// The route's pattern without the base path, so that dashboards stay valid when the base path changes.
/// All unknown paths are `unmatched`, so that clients cannot create labels.
fn route<'a>(matched: Option<&'a MatchedPath>, base_path: &BasePath) -> &'a str {
    let route = matched.map(MatchedPath::as_str);
    let route = route.map(|path| path.strip_prefix(base_path.as_str()).unwrap_or(path));
    route.unwrap_or("unmatched")
}

/// All unknown methods are `other`, so that clients cannot create labels.
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
