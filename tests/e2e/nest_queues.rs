//! Services on NestJS 10, 11 and 12 and Belfry use the same queue, for each way in which services declare it, in
//! either order, and across restarts of the broker.

use std::collections::BTreeSet;

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::NestService;
use belfry_tests::http::Http;
use belfry_tests::process::Belfry;
use belfry_tests::rabbit::RabbitServer;
use belfry_tests::wait::{until, until_true};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use serde_json::{Map, Value, json};

use crate::setup::{SECRET, key};

/// The recipient of all notifications. Each `belfry` has its own inboxes.
const USER: &str = "ada";

/// The time between two messages of each client of a service, in milliseconds.
const EMIT_EVERY: u64 = 1_000;

const VERSIONS: [u8; 3] = [10, 11, 12];

/// How services publish, and how Belfry is configured for it. `QUEUE` stands for the name of the queue.
struct Row {
    name: &'static str,
    /// The options of the services' `ClientRMQ`.
    options: Value,
    settings: &'static [(&'static str, &'static str)],
    versions: &'static [u8],
    /// The queue and its messages outlive a restart of the broker and the end of the consumer.
    is_kept: bool,
    services_declare: bool,
}

impl Row {
    fn new(
        name: &'static str,
        options: Value,
        settings: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { name, options, settings, versions: &VERSIONS, is_kept: true, services_declare: true }
    }

    fn queue(
        name: &'static str,
        options: &Value,
        settings: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::new(name, json!({ "queueOptions": options }), settings)
    }

    /// By an exchange, which NestJS 10 does not support.
    fn exchange(
        name: &'static str,
        options: Value,
        settings: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { versions: &[11, 12], services_declare: false, ..Self::new(name, options, settings) }
    }

    fn without_declaration(self) -> Self {
        Self { services_declare: false, ..self }
    }

    fn not_kept(self) -> Self {
        Self { is_kept: false, ..self }
    }
}

/// The services declare a transient queue; Belfry has the default settings.
const UNCONFIGURED: &str = "transient-unconfigured";
const PASSIVE: &str = "passive";

fn rows() -> Vec<Row> {
    const ARGUMENTS: &str = "amqp.ingest.declare.arguments";
    const BIND: &str = "amqp.ingest.bind";
    let transient = json!({ "durable": false });
    let quorum = json!({ "durable": true, "arguments": { "x-queue-type": "quorum" } });
    let (wildcards, fanout) = (
        json!({ "wildcards": true, "exchange": "QUEUE.events" }),
        json!({ "exchangeType": "fanout", "exchange": "QUEUE.events" }),
    );
    vec![
        Row::new("default", json!({}), &[]),
        Row::queue("durable", &json!({ "durable": true }), &[]),
        Row::queue("transient", &transient, &[("amqp.ingest.declare.durable", "false")]).not_kept(),
        Row::queue(PASSIVE, &transient, &[("amqp.ingest.declare.passive", "true")]).not_kept(),
        Row::queue(UNCONFIGURED, &transient, &[]).not_kept(),
        Row::queue("quorum", &quorum, &[(ARGUMENTS, "x-queue-type=quorum")]),
        Row::queue(
            "dead-letter-exchange",
            &json!({ "deadLetterExchange": "dlx" }),
            &[(ARGUMENTS, "x-dead-letter-exchange=dlx")],
        ),
        Row::queue(
            "message-ttl",
            &json!({ "messageTtl": 60_000 }),
            &[(ARGUMENTS, "x-message-ttl=60000")],
        ),
        Row::queue(
            "max-priority",
            &json!({ "maxPriority": 10 }),
            &[(ARGUMENTS, "x-max-priority=10")],
        ),
        Row::queue(
            "auto-delete",
            &json!({ "autoDelete": true }),
            &[("amqp.ingest.declare.auto_delete", "true")],
        )
        .not_kept(),
        Row::new("no-assert", json!({ "noAssert": true }), &[]).without_declaration(),
        Row::exchange("wildcards", json!({ "wildcards": true }), &[]),
        Row::exchange(
            "wildcards-exchange",
            wildcards,
            &[(BIND, "topic:QUEUE.events:notification.*")],
        ),
        Row::exchange("fanout", fanout, &[(BIND, "fanout:QUEUE.events")]),
    ]
}

/// A row, and the Belfry that consumes its queue. `belfry` is `None` before its start.
struct Case {
    row: Row,
    belfry: Option<Belfry>,
}

impl Case {
    fn queue(&self) -> &'static str {
        self.row.name
    }

    /// The configuration of a service's client for this queue.
    fn client(&self) -> Value {
        let text = self.row.options.to_string().replace("QUEUE", self.queue());
        let mut options: Map<String, Value> = serde_json::from_str(&text).unwrap();
        options.insert("queue".to_owned(), self.queue().into());
        options.insert("persistent".to_owned(), self.row.is_kept.into());
        json!({ "userId": USER, "options": options })
    }

    /// Starts Belfry unless it runs.
    async fn start_belfry(&mut self, url: &str) {
        if let Some(belfry) = &mut self.belfry {
            if !belfry.is_running() {
                belfry.restart().await;
            }
            return;
        }
        let mut builder = Belfry::builder()
            .amqp(url)
            .setting("auth.hs256_secret", SECRET)
            .setting("amqp.ingest.queue", self.queue())
            .setting("amqp.ingest.only_node", true);
        for (path, value) in self.row.settings {
            builder = builder.setting(path, value.replace("QUEUE", self.queue()));
        }
        self.belfry = Some(builder.start().await);
    }

    fn belfry(&self) -> &Belfry {
        self.belfry.as_ref().expect("it has been started")
    }

    fn kill_belfry(&mut self) {
        self.belfry.as_mut().expect("it has been started").kill();
    }

    /// Waits until Belfry consumes the queue.
    async fn is_consumed(&self, amqp: &Amqp) {
        let what = format!("{} is consumed", self.queue());
        until_true(&what, async || amqp.consumers(self.queue()).await == Some(1)).await;
    }

    /// Waits until Belfry has declared the queue, or waits for its declaration.
    async fn is_expected(&self, amqp: &Amqp) {
        if self.row.name == PASSIVE {
            self.belfry().log_line("ingest queue missing").await;
        } else {
            self.is_consumed(amqp).await;
        }
    }

    /// Waits until all of these are in the inbox.
    async fn stores(&self, ids: BTreeSet<String>) {
        assert!(!ids.is_empty(), "{} has messages", self.queue());
        let http = self.belfry().http().bearer(key().token(USER).sign());
        let mut missing = ids;
        until(&format!("all messages of {} arrive", self.queue()), async || {
            let stored = stored(&http).await;
            let before = missing.len();
            missing.retain(|id| !stored.contains(id));
            if missing.len() < before && !missing.is_empty() {
                println!("{} waits for {missing:?}", self.queue());
            }
            missing.is_empty().then_some(())
        })
        .await;
    }

    /// Whether a message that the broker confirmed must arrive. In phases named `calm`, the queue exists and is
    /// consumed. Before Belfry's first start, only the services declare it.
    fn must_arrive(&self, id: &str) -> bool {
        let existed = self.row.services_declare || !id.starts_with("start");
        id.starts_with("calm") || (self.row.is_kept && existed)
    }
}

async fn stored(http: &Http) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut path = "/v1/notifications?limit=100".to_owned();
    loop {
        let page = http.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { return ids };
        path = format!("/v1/notifications?limit=100&cursor={cursor}");
    }
}

struct Matrix {
    server: RabbitServer,
    cases: Vec<Case>,
    /// One for each version. Each has a client for every queue.
    services: Vec<NestService>,
}

impl Matrix {
    async fn start_services(&mut self, phase: &str) {
        let services = VERSIONS.map(|version| {
            let cases = self.cases.iter().filter(|case| case.row.versions.contains(&version));
            let clients: Map<_, _> =
                cases.map(|case| (case.queue().to_owned(), case.client())).collect();
            let url = self.server.url();
            let config =
                json!({ "url": url, "every": EMIT_EVERY, "phase": phase, "clients": clients });
            NestService::start(version, config)
        });
        self.services = services.into();
        self.each_service_reports("ready", 1).await;
    }

    async fn each_service_reports(&self, kind: &str, times: usize) {
        join_all(self.services.iter().map(|service| service.each_reports(kind, times))).await;
    }

    async fn services_emit_in(&self, phase: &str) {
        join_all(self.services.iter().map(|service| service.emits_in(phase))).await;
    }

    /// None of them has ended before, and what the broker has confirmed arrives.
    async fn stop_services(&mut self) {
        for service in &mut self.services {
            let status = service.stop().await;
            assert!(status.success(), "{status}: {}", service.transcript());
        }
        self.confirmed_messages_arrive(Case::must_arrive).await;
    }

    /// Starts every Belfry that does not run.
    async fn start_belfry(&mut self) {
        let url = self.server.url();
        // A few at a time, as each start takes processor time.
        let starts = stream::iter(&mut self.cases);
        starts.for_each_concurrent(4, |case| case.start_belfry(url)).await;
    }

    async fn amqp(&self) -> Amqp {
        Amqp::connect(self.server.url()).await
    }

    async fn all_are_consumed(&self) {
        let amqp = self.amqp().await;
        for case in &self.cases {
            case.is_consumed(&amqp).await;
        }
    }

    /// While nothing happens to the broker or to Belfry, every message arrives. The services then emit in the
    /// phase `next`, in which something may happen.
    async fn all_arrive(&self, calm: &str, next: &str) {
        self.all_are_consumed().await;
        self.services_emit_in(calm).await;
        join_all(self.services.iter().map(|service| service.begin(next))).await;
        self.confirmed_messages_arrive(|_, id| id.starts_with(calm)).await;
    }

    async fn confirmed_messages_arrive(&self, must_arrive: impl Fn(&Case, &str) -> bool) {
        let stores = self.cases.iter().map(|case| {
            let services = self.services.iter();
            let confirmed = services.flat_map(|service| service.confirmed(case.queue()));
            case.stores(confirmed.filter(|id| must_arrive(case, id)).collect())
        });
        join_all(stores).await;
    }
}

/// RabbitMQ 4.3 and later refuse transient queues unless they are permitted, to services and to Belfry alike.
pub(crate) async fn permits_transient_queues(url: &str) -> bool {
    let amqp = Amqp::connect(url).await;
    let (options, arguments) = (QueueDeclareOptions::default(), FieldTable::default());
    let Ok(queue) = amqp.channel().queue_declare("".into(), options, arguments).await else {
        return false;
    };
    let deleting = amqp.channel().queue_delete(queue.name().clone(), QueueDeleteOptions::default());
    deleting.await.unwrap();
    true
}

/// One broker, one Belfry for each row, and one process for each version of NestJS.
#[tokio::test]
async fn nestjs_services_and_belfry_share_each_kind_of_queue_across_restarts_of_the_broker() {
    let server = RabbitServer::start_own().await;
    let mut rows = rows();
    if !permits_transient_queues(server.url()).await {
        println!("this RabbitMQ permits no transient queues; they are left out");
        rows.retain(|row| row.options["queueOptions"]["durable"] != false);
    }
    let cases = rows.into_iter().map(|row| Case { row, belfry: None }).collect();
    let mut matrix = Matrix { server, cases, services: Vec::new() };

    // Services first.
    matrix.start_services("start").await;
    matrix.start_belfry().await;
    matrix.all_arrive("calm-1", "outage-1").await;

    // The broker restarts while all are connected. They reconnect in any order.
    matrix.server.stop().await;
    matrix.each_service_reports("disconnected", 1).await;
    let lost = matrix.cases.iter().map(|case| case.belfry().log_line("RabbitMQ connection lost"));
    join_all(lost).await;
    matrix.server.start().await;
    matrix.all_arrive("calm-2", "outage-2").await;

    // Belfry first.
    matrix.stop_services().await;
    let amqp = matrix.amqp().await;
    // With other properties than the services', Belfry must not be the first.
    matrix.cases.retain(|case| case.row.name != UNCONFIGURED);
    for case in &mut matrix.cases {
        case.kill_belfry();
        let queue = case.queue().into();
        amqp.channel().queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();
    }
    matrix.start_belfry().await;
    for case in &matrix.cases {
        case.is_expected(&amqp).await;
    }
    matrix.start_services("restart").await;
    matrix.all_arrive("calm-3", "outage-3").await;

    // The broker crashes while every second Belfry is down, so that the services declare its queue.
    matrix.cases.iter_mut().step_by(2).for_each(Case::kill_belfry);
    matrix.server.kill().await;
    matrix.each_service_reports("disconnected", 1).await;
    matrix.server.start().await;
    matrix.services_emit_in("reconnected").await;
    matrix.start_belfry().await;
    matrix.all_arrive("calm-4", "end").await;
    matrix.stop_services().await;
}
