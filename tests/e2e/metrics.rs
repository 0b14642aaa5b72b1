//! The metrics that a node reports to Prometheus.

use std::collections::BTreeSet;
use std::env;
use std::process::Stdio;

use belfry_adapters::outbound::system::SystemClock;
use belfry_application::ports::Clock;
use belfry_tests::amqp::Amqp;
use belfry_tests::process::Belfry;
use belfry_tests::wait::until;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::setup::{Setup, signed_in, signed_in_without_count};

on_both_setups!(metrics_have_no_lint_and_measure_each_stage_of_an_event);

/// The text of `/metrics`.
struct Scrape(String);

impl Scrape {
    async fn of(belfry: &Belfry) -> Self {
        let answer = belfry.admin_http().get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:#?}");
        Self(answer.text)
    }

    /// The sum of all series of this name whose labels contain `labels`.
    fn sum(&self, name: &str, labels: &str) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let after_name = line.strip_prefix(name)?;
            let is_series = after_name.starts_with([' ', '{']) && after_name.contains(labels);
            is_series.then(|| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        });
        values.sum()
    }

    /// Whether the histogram has an observation in a series whose labels contain `labels`.
    fn has_observation(&self, histogram: &str, labels: &str) -> bool {
        self.sum(&format!("{histogram}_count"), labels) >= 1.0
    }

    /// The names of the metrics that have this comment, `# HELP ` or `# TYPE `.
    fn names(&self, comment: &str) -> BTreeSet<&str> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(comment));
        lines.map(|line| line.split(' ').next().unwrap()).collect()
    }

    /// Checks that `promtool check metrics` has no findings.
    async fn assert_no_lint(&self) {
        let program = env::var_os("BELFRY_PROMTOOL").unwrap_or_else(|| "promtool".into());
        let mut promtool = Command::new(program)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts; tests/run installs it (Debian's package prometheus)");
        let mut input = promtool.stdin.take().unwrap();
        input.write_all(self.0.as_bytes()).await.unwrap();
        drop(input);
        let output = promtool.wait_with_output().await.unwrap();
        let findings = [output.stdout, output.stderr].concat();
        let findings = String::from_utf8_lossy(&findings);
        assert!(output.status.success() && findings.is_empty(), "{findings}\n{}", self.0);
    }
}

async fn metrics_have_no_lint_and_measure_each_stage_of_an_event(setup: Setup) {
    let deployment = setup.own().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;
    let created = deployment.notify(&ada, json!({ "title": "Hello" })).await;
    device.expect("notification:new").await;
    let marked = device.call("notification:mark_read", json!({ "id": created["id"] })).await;
    assert_eq!(marked["status"], "ok", "{marked}");
    device.call("notification:sync", json!({ "since": 0 })).await;

    let scrape = until("both events are measured", async || {
        let scrape = Scrape::of(&deployment.belfry).await;
        (scrape.sum("belfry_commit_to_socket_seconds_count", "") >= 2.0).then_some(scrape)
    })
    .await;
    let create_request = r#"route="/v1/notifications",method="POST",status="201""#;
    for (histogram, labels) in [
        ("belfry_http_request_duration_seconds", create_request),
        ("belfry_http_request_seconds", create_request),
        ("belfry_catch_up_seconds", r#"cause="request""#),
        ("belfry_store_operation_seconds", r#"operation="create""#),
        ("belfry_store_operation_seconds", r#"operation="mark_read""#),
        ("belfry_store_operation_seconds", r#"operation="changed_in""#),
        ("belfry_store_operation_seconds", r#"operation="outbox_remove""#),
    ] {
        assert!(scrape.has_observation(histogram, labels), "{histogram} {labels}: {}", scrape.0);
    }
    let latency = scrape.sum("belfry_commit_to_socket_seconds_sum", "");
    assert!(latency < 60.0, "the store and the node share a clock, but the latency is {latency} s");
    let build = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    for (name, labels, min) in [
        ("belfry_build_info", &*build, 1.0),
        ("belfry_announcements_delivered_total", "", 2.0),
        ("process_resident_memory_bytes", "", 1e6),
        ("process_start_time_seconds", "", 1.6e9),
        ("process_open_fds", "", 3.0),
    ] {
        assert!(scrape.sum(name, labels) >= min, "{name}: {}", scrape.0);
    }
    assert_eq!(scrape.names("# HELP "), scrape.names("# TYPE "), "each metric is described");
    let gauges =
        ["belfry_devices_lagging", "belfry_outbox_age_seconds", "process_cpu_seconds_total"];
    assert!(gauges.iter().all(|name| scrape.names("# TYPE ").contains(name)), "{}", scrape.0);
    scrape.assert_no_lint().await;
}

#[tokio::test]
async fn forwarded_event_is_measured_from_its_publication_to_the_socket() {
    for only_node in [false, true] {
        let deployment = Setup::Servers
            .own_with(|builder| {
                let only_node = only_node.to_string();
                builder
                    .setting("amqp.ingest.mode", "forward")
                    .setting("amqp.ingest.only_node", only_node)
            })
            .await;
        let ada = deployment.user("ada");
        let device = signed_in_without_count(ada.node()).await;
        let broker = deployment.broker();
        let mut headers = FieldTable::default();
        let two_seconds_ago = SystemClock.now().unix_millis() - 2_000;
        headers.insert("timestamp_in_ms".into(), AMQPValue::LongLongInt(two_seconds_ago));
        let body = json!({ "pattern": "notification.created", "data": { "userId": ada.id() } });
        let (body, properties) =
            (body.to_string(), BasicProperties::default().with_headers(headers));
        let amqp = Amqp::connect(broker.url()).await;
        amqp.publish("", &broker.ingest_queue(), &body, properties).await;
        device.expect("notification:new").await;

        let scrape = until("the event is measured", async || {
            let scrape = Scrape::of(&deployment.belfry).await;
            scrape.has_observation("belfry_publish_to_socket_seconds", "").then_some(scrape)
        })
        .await;
        for histogram in ["belfry_publish_to_socket_seconds", "belfry_ingest_lag_seconds"] {
            let seconds = scrape.sum(&format!("{histogram}_sum"), "");
            assert!((2.0..60.0).contains(&seconds), "{histogram}: {seconds}");
        }
        scrape.assert_no_lint().await;
    }
}
