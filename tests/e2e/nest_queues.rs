//! Services on NestJS 10, 11 and 12 share a queue with Belfry. The test covers each way in which services
//! declare the queue, either order of start, and restarts of the broker.

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
    /// The name of the row and of its queue.
    name: &'static str,
    /// The options of the services' `ClientRMQ`.
    options: Value,
    /// The settings of Belfry.
    settings: &'static [(&'static str, &'static str)],
    /// The versions of NestJS that support these options.
    versions: &'static [u8],
    /// Whether the queue and its messages outlive a restart of the broker and the end of the consumer.
    is_kept: bool,
    /// Whether the services declare the queue.
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

    /// A row whose services publish to an exchange, which NestJS 10 does not support.
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

/// Belfry does not declare the queue, and waits until the services have declared it.
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

/// A row, and the Belfry that consumes its queue.
struct Case {
    row: Row,
    /// `None` before the first start.
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
    async fn until_consumed(&self, amqp: &Amqp) {
        let what = format!("{} is consumed", self.queue());
        until_true(&what, async || amqp.consumers(self.queue()).await == Some(1)).await;
    }

    /// Waits until Belfry has declared the queue, or waits for its declaration.
    async fn until_expected(&self, amqp: &Amqp) {
        if self.row.name == PASSIVE {
            self.belfry().log_line("ingest queue missing").await;
        } else {
            self.until_consumed(amqp).await;
        }
    }

    /// Waits until all these notifications are in the inbox.
    async fn until_stored(&self, ids: BTreeSet<String>) {
        assert!(!ids.is_empty(), "no message of {} must arrive", self.queue());
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

    /// Whether a message must arrive after the broker has confirmed it. The id starts with the message's
    /// phase.
    ///
    /// In phases named `calm`, the queue exists and is consumed. In the phase `start`, Belfry does not run
    /// yet, and the queue exists only if the services declare it.
    fn must_arrive(&self, id: &str) -> bool {
        let queue_existed = self.row.services_declare || !id.starts_with("start");
        id.starts_with("calm") || (self.row.is_kept && queue_existed)
    }
}

/// The ids of all notifications in the inbox.
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

/// One broker, one Belfry for each row, and one service for each version of NestJS.
struct Matrix {
    server: RabbitServer,
    cases: Vec<Case>,
    /// Each service has a client for every queue that its version supports.
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
        self.until_each_service_reports("ready", 1).await;
    }

    async fn until_each_service_reports(&self, kind: &str, times: usize) {
        join_all(self.services.iter().map(|service| service.until_each_reports(kind, times))).await;
    }

    /// Begins a phase, and waits until each client has two confirms in it.
    async fn begin_and_confirm(&self, phase: &str) {
        join_all(self.services.iter().map(|service| service.begin_and_confirm(phase))).await;
    }

    /// Stops the services. Checks that none has ended before, and that the messages arrive that must arrive.
    async fn stop_services(&mut self) {
        for service in &mut self.services {
            let status = service.stop().await;
            assert!(status.success(), "{status}: {}", service.transcript());
        }
        self.until_confirmed_messages_arrive(Case::must_arrive).await;
    }

    /// Starts every Belfry that does not run.
    async fn start_belfry(&mut self) {
        let url = self.server.url();
        // Only a few at a time, because each start takes processor time.
        let starts = stream::iter(&mut self.cases);
        starts.for_each_concurrent(4, |case| case.start_belfry(url)).await;
    }

    async fn amqp(&self) -> Amqp {
        Amqp::connect(self.server.url()).await
    }

    async fn until_all_consumed(&self) {
        let amqp = self.amqp().await;
        for case in &self.cases {
            case.until_consumed(&amqp).await;
        }
    }

    /// Checks that every message of the phase `calm` arrives, in which the broker and Belfry are not
    /// disturbed. The services then begin the phase `next`, in which they may be disturbed.
    async fn assert_all_arrive(&self, calm: &str, next: &str) {
        self.until_all_consumed().await;
        self.begin_and_confirm(calm).await;
        join_all(self.services.iter().map(|service| service.begin(next))).await;
        self.until_confirmed_messages_arrive(|_, id| id.starts_with(calm)).await;
    }

    async fn until_confirmed_messages_arrive(&self, must_arrive: impl Fn(&Case, &str) -> bool) {
        let stores = self.cases.iter().map(|case| {
            let services = self.services.iter();
            let confirmed = services.flat_map(|service| service.confirmed(case.queue()));
            case.until_stored(confirmed.filter(|id| must_arrive(case, id)).collect())
        });
        join_all(stores).await;
    }
}

/// Whether this RabbitMQ accepts the declaration of transient queues. Version 4.3 and later refuse it by
/// default.
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

#[tokio::test]
async fn nestjs_services_and_belfry_share_each_kind_of_queue_across_restarts_of_the_broker() {
    let server = RabbitServer::start_own().await;
    let mut rows = rows();
    if !permits_transient_queues(server.url()).await {
        println!("this RabbitMQ permits no transient queues: their rows are left out");
        rows.retain(|row| row.options["queueOptions"]["durable"] != false);
    }
    let cases = rows.into_iter().map(|row| Case { row, belfry: None }).collect();
    let mut matrix = Matrix { server, cases, services: Vec::new() };

    // The services start first.
    matrix.start_services("start").await;
    matrix.start_belfry().await;
    matrix.assert_all_arrive("calm-1", "outage-1").await;

    // The broker restarts while the services and Belfry are connected. They reconnect in any order.
    matrix.server.stop().await;
    matrix.until_each_service_reports("disconnected", 1).await;
    let lost = matrix.cases.iter().map(|case| case.belfry().log_line("RabbitMQ connection lost"));
    join_all(lost).await;
    matrix.server.start().await;
    matrix.assert_all_arrive("calm-2", "outage-2").await;

    // Belfry starts first.
    matrix.stop_services().await;
    let amqp = matrix.amqp().await;
    // In this row Belfry must not declare the queue first, because its properties would differ from those
    // that the services declare.
    matrix.cases.retain(|case| case.row.name != UNCONFIGURED);
    for case in &mut matrix.cases {
        case.kill_belfry();
        let queue = case.queue().into();
        amqp.channel().queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();
    }
    matrix.start_belfry().await;
    for case in &matrix.cases {
        case.until_expected(&amqp).await;
    }
    matrix.start_services("restart").await;
    matrix.assert_all_arrive("calm-3", "outage-3").await;

    // The broker crashes while every second Belfry is down, so that the services declare its queue.
    matrix.cases.iter_mut().step_by(2).for_each(Case::kill_belfry);
    matrix.server.kill().await;
    matrix.until_each_service_reports("disconnected", 1).await;
    matrix.server.start().await;
    matrix.begin_and_confirm("reconnected").await;
    matrix.start_belfry().await;
    matrix.assert_all_arrive("calm-4", "end").await;
    matrix.stop_services().await;
}
