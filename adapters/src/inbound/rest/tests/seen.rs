//! What is seen of requests: ids, traces, metrics.

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

use super::{Answer, Api, as_user};
use crate::inbound::rest::RestSettings;

async fn with_id(api: &Api, id: &[u8]) -> Answer {
    let request = Request::get("/health/live").header("x-request-id", id);
    api.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let api = Api::new();
    let first = api.get("ada", "/nowhere").await;
    let second = api.get("ada", "/nowhere").await;
    let id = first.header("x-request-id").unwrap();
    assert_eq!(id.len(), 36);
    assert_ne!(Some(id), second.header("x-request-id"));
    assert_eq!(
        with_id(&api, b"order-7/retry:2").await.header("x-request-id"),
        Some("order-7/retry:2")
    );
}

#[tokio::test]
async fn an_id_that_cannot_stand_in_a_log_is_not_kept() {
    let api = Api::new();
    for id in [&b""[..], b"two words", b"\"quoted\"\ttab", b"\xfc", &[b'x'; 129]] {
        let answer = with_id(&api, id).await;
        assert_ne!(answer.headers["x-request-id"].as_bytes(), id);
        assert_eq!(answer.header("x-request-id").unwrap().len(), 36);
    }
    let two = Request::get("/health/live").header("x-request-id", "a").header("x-request-id", "b");
    let answer = api.send(two.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("x-request-id").unwrap().len(), 36);
}

#[tokio::test]
async fn what_is_one_users_is_not_stored_on_its_way() {
    let api = Api::new();
    let answer = api.get("ada", "/v1/notifications").await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn work_is_a_part_of_the_trace_that_asked_for_it() {
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
        let answer = Api::over_store(store).send(request.body(Body::empty()).unwrap()).await;
        answer.expect(StatusCode::OK);
        assert_eq!(seen.lock().as_ref().map(TraceParent::as_str), expected);
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
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
fn the_log_says_who_asked_for_what_and_nothing_of_what_was_sent() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With a single subscriber, tracing asks the thread that comes by first whether anybody listens,
    // and in another test's thread nobody does.
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    tracing::subscriber::with_default(subscriber, || {
        runtime().block_on(async {
            let api = Api::new();
            let refused = api.get("ada", "/v1/notifications?cursor=s3cret").await;
            refused.problem(400, "cursor_invalid");
            let request = Request::get("/v1/notifications?token=s3cret");
            let request = request.header("authorization", "Bearer s3cret").body(Body::empty());
            api.send(request.unwrap()).await.problem(401, "token_invalid");
            let draft = json!({ "userId": "bob", "title": "s3cret", "data": { "s3cret": 1 } });
            api.post_once("s3cret", "/v1/notifications", draft).await.expect(StatusCode::CREATED);
            let draft = json!({ "userId": "bob", "title": "Hi", "priority": "s3cret" });
            api.post("/v1/notifications", draft).await.problem(422, "body_invalid");
        });
    });
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(!log.contains("s3cret"), "{log}");
    let line = log.lines().find(|line| line.contains("answered")).expect("a line of the answer");
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

/// Remembers which histograms were recorded.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

struct Ignored;

impl HistogramFn for Ignored {
    fn record(&self, _: f64) {}
}

impl Recorder for Seen {
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
        Histogram::from_arc(Arc::new(Ignored))
    }
}

#[test]
fn a_request_is_measured_under_its_route_and_no_name_that_a_client_made_up() {
    let seen = Seen::default();
    metrics::with_local_recorder(&seen, || {
        runtime().block_on(async {
            let api = Api::new();
            api.get("ada", "/v1/notifications/s3cret").await;
            api.ask("ada", "BREW", "/v1/notifications/s3cret").await;
            api.get("ada", "/s3cret").await;
            api.ask("ada", "PATCH", "/v1/notifications/read-all?s3cret").await;
        });
    });
    assert_eq!(
        *seen.0.lock(),
        [
            "belfry_http_request_seconds /v1/notifications/{id} GET 404",
            "belfry_http_request_seconds /v1/notifications/{id} other 405",
            "belfry_http_request_seconds unmatched GET 404",
            "belfry_http_request_seconds /v1/notifications/read-all PATCH 200",
        ]
    );
}

#[test]
fn route_in_metrics_does_not_have_the_base_path() {
    let seen = Seen::default();
    metrics::with_local_recorder(&seen, || {
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
        *seen.0.lock(),
        [
            "belfry_http_request_seconds /v1/notifications/{id} GET 404",
            "belfry_http_request_seconds /health/live GET 200",
            "belfry_http_request_seconds unmatched GET 404",
        ]
    );
}
