//! Request ids, traces, logs and metrics.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use belfry_application::testing::MockInboxRepository;
use belfry_application::trace::{self, TraceParent};
use belfry_domain::InboxState;
use http::{Request, StatusCode};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use parking_lot::Mutex;
use serde_json::json;

use super::{Api, TestResponse, as_user};
use crate::inbound::rest::RestSettings;

/// The length of a generated request id, a UUID.
const UUID_LENGTH: usize = 36;

async fn with_id(api: &Api, id: &[u8]) -> TestResponse {
    let request = Request::get("/health/live").header("x-request-id", id);
    api.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_response_has_a_request_id() {
    let api = Api::new();
    let first = api.get("ada", "/nowhere").await;
    let second = api.get("ada", "/nowhere").await;
    let id = first.header("x-request-id").unwrap();
    assert_eq!(id.len(), UUID_LENGTH);
    assert_ne!(Some(id), second.header("x-request-id"));
    assert_eq!(
        with_id(&api, b"order-7/retry:2").await.header("x-request-id"),
        Some("order-7/retry:2")
    );
}

#[tokio::test]
async fn unsafe_request_id_is_replaced() {
    let api = Api::new();
    for id in [&b""[..], b"two words", b"\"quoted\"\ttab", b"\xfc", &[b'x'; 129]] {
        let response = with_id(&api, id).await;
        assert_ne!(response.headers["x-request-id"].as_bytes(), id);
        assert_eq!(response.header("x-request-id").unwrap().len(), UUID_LENGTH);
    }
    let two = Request::get("/health/live").header("x-request-id", "a").header("x-request-id", "b");
    let response = api.send(two.body(Body::empty()).unwrap()).await;
    assert_eq!(response.header("x-request-id").unwrap().len(), UUID_LENGTH);
}

#[tokio::test]
async fn responses_are_not_cacheable() {
    let api = Api::new();
    let response = api.get("ada", "/v1/notifications").await;
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn request_continues_the_trace_of_its_caller() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (sent, expected) in [(Some(PARENT), Some(PARENT)), (Some("nonsense"), None), (None, None)] {
        let seen = Arc::new(Mutex::new(None));
        let mut store = MockInboxRepository::new();
        let inside = seen.clone();
        store.expect_state().returning(move |_| {
            *inside.lock() = trace::current();
            Ok(InboxState::default())
        });
        let mut request = as_user("ada", "GET", "/v1/notifications/unread-count");
        if let Some(sent) = sent {
            request = request.header("traceparent", sent);
        }
        let response = Api::with_store(store).send(request.body(Body::empty()).unwrap()).await;
        response.expect(StatusCode::OK);
        assert_eq!(seen.lock().as_ref().map(TraceParent::as_str), expected);
    }
}

/// Collects the log.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogBuffer {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn log_has_request_fields_and_nothing_of_the_content() {
    let log = LogBuffer::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With a single subscriber, tracing lets the first thread that reaches a callsite decide whether the
    // callsite is enabled, and caches the result. That may be a thread of another test, without a subscriber.
    // A second subscriber prevents the caching.
    let _second_subscriber = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    tracing::subscriber::with_default(subscriber, || {
        runtime().block_on(async {
            let api = Api::new();
            let rejected = api.get("ada", "/v1/notifications?cursor=s3cret").await;
            rejected.problem(400, "cursor_invalid");
            let request = Request::get("/v1/notifications?token=s3cret");
            let request = request.header("authorization", "Bearer s3cret").body(Body::empty());
            api.send(request.unwrap()).await.problem(401, "token_invalid");
            let draft = json!({ "userId": "bob", "title": "s3cret", "data": { "s3cret": 1 } });
            api.post_with_key("s3cret", "/v1/notifications", draft)
                .await
                .expect(StatusCode::CREATED);
            let draft = json!({ "userId": "bob", "title": "Hi", "priority": "s3cret" });
            api.post("/v1/notifications", draft).await.problem(422, "body_invalid");
        });
    });
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(!log.contains("s3cret"), "{log}");
    let line =
        log.lines().find(|line| line.contains("request completed")).expect("a line per request");
    for field in [
        "method=\"GET\"",
        "route=\"/v1/notifications\"",
        "request_id=",
        "user=\"ada\"",
        "status=400",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
}

/// Collects the name and labels of every registered histogram.
#[derive(Default)]
struct HistogramRecorder(Mutex<Vec<String>>);

struct IgnoredHistogram;

impl HistogramFn for IgnoredHistogram {
    fn record(&self, _: f64) {}
}

impl Recorder for HistogramRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        self.0.lock().push(format!("{} {}", key.name(), labels.join(" ")));
        Histogram::from_arc(Arc::new(IgnoredHistogram))
    }
}

/// For each list of labels, the entries of the histogram and of the deprecated summary in [`HistogramRecorder`].
fn in_both_metrics(labels: impl IntoIterator<Item = &'static str>) -> Vec<String> {
    let names = ["belfry_http_request_duration_seconds", "belfry_http_request_seconds"];
    let entries = |labels| names.map(|name| format!("{name} {labels}"));
    labels.into_iter().flat_map(entries).collect()
}

#[test]
fn duration_is_recorded_by_route_and_clients_cannot_create_labels() {
    let recorder = HistogramRecorder::default();
    metrics::with_local_recorder(&recorder, || {
        runtime().block_on(async {
            let api = Api::new();
            api.get("ada", "/v1/notifications/s3cret").await;
            api.get("ada", "/v1/notifications/registered-once").await;
            api.call("ada", "BREW", "/v1/notifications/s3cret").await;
            api.get("ada", "/s3cret").await;
            api.call("ada", "PATCH", "/v1/notifications/read-all?s3cret").await;
        });
    });
    assert_eq!(
        *recorder.0.lock(),
        in_both_metrics([
            "/v1/notifications/{id} GET 404",
            "/v1/notifications/{id} other 405",
            "unmatched GET 404",
            "/v1/notifications/read-all PATCH 400",
        ])
    );
}

#[test]
fn route_label_has_no_base_path() {
    let recorder = HistogramRecorder::default();
    metrics::with_local_recorder(&recorder, || {
        runtime().block_on(async {
            let base_path = "/notify".parse().unwrap();
            let settings = RestSettings { base_path, ..RestSettings::default() };
            let api = Api::with_settings(settings);
            api.get("ada", "/notify/v1/notifications/n1").await;
            api.get("ada", "/health/live").await;
            api.get("ada", "/v1/notifications").await;
        });
    });
    assert_eq!(
        *recorder.0.lock(),
        in_both_metrics([
            "/v1/notifications/{id} GET 404",
            "/health/live GET 200",
            "unmatched GET 404"
        ])
    );
}
