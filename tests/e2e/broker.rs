//! A broker on which Belfry has few rights, and the memory that large messages take.

use std::fs;
use std::path::Path;

use belfry_tests::amqp::Amqp;
use belfry_tests::process::Belfry;
use belfry_tests::rabbit::{Broker, MINIMAL_RIGHTS, RabbitServer};
use belfry_tests::wait::{until, until_at_least, until_true};
use lapin::BasicProperties;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use crate::setup::{Backends, Setup, User, notify, ready, signed_in, until_ready};

/// Declares the queues, exchanges and bindings that Belfry would declare for a node of this name.
async fn predeclare(amqp: &Amqp, broker: &Broker, node: &str) {
    let (ingest, node) = (broker.ingest_queue(), broker.node_queue(node));
    for queue in [&ingest, &broker.dead_queue(), &node] {
        amqp.declare_queue(queue, FieldTable::default()).await;
    }
    for delay in ["1s", "5s", "30s", "120s"] {
        amqp.declare_queue(&format!("{ingest}.retry.{delay}"), FieldTable::default()).await;
    }
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let channel = amqp.channel();
    for (exchange, queue, key) in [
        (&ingest, &ingest, "#"),
        (&broker.events_exchange(), &node, "notification.#"),
        (&broker.events_exchange(), &node, "belfry.passed"),
    ] {
        let (exchange, queue) = (exchange.as_str(), queue.as_str());
        let topic = ExchangeKind::Topic;
        channel
            .exchange_declare(exchange.into(), topic, durable, FieldTable::default())
            .await
            .unwrap();
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn users_with_the_documented_rights_suffice() {
    let server = RabbitServer::start_own().await;
    user_without_configure_right_suffices_if_everything_is_declared(&server).await;
    user_with_the_rights_of_the_readme_suffices(&server).await;
}

async fn user_with_the_rights_of_the_readme_suffices(server: &RabbitServer) {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let command = format!("rabbitmqctl set_permissions belfry '{}'", MINIMAL_RIGHTS.join("' '"));
    assert!(fs::read_to_string(readme).unwrap().contains(&command), "no {command:?} in the README");
    let url = server.add_minimal_user().await;
    let backends = Backends { database: None, broker: None };
    let belfry =
        ready(backends.belfry().amqp(&url).setting("node.name", "one").start().await).await;
    let amqp = Amqp::connect(server.url()).await;
    amqp.declare_queue("replies", FieldTable::default()).await;
    let ada = User::new("ada", &belfry);
    let device = signed_in(ada.node()).await;
    let data = json!({ "userId": ada.id(), "id": "n1", "title": "Hi" });
    let request = json!({ "pattern": "notification.create", "data": data, "id": "1" });
    let properties =
        BasicProperties::default().with_reply_to("replies".into()).with_correlation_id("1".into());
    amqp.publish("belfry.ingest", "notification.create", request.to_string(), properties).await;
    assert_eq!(device.expect("notification:new").await["id"], "n1");
    assert_eq!(amqp.next("replies").await.json()["response"]["id"], "n1");
    amqp.send("belfry.ingest", &json!({ "pattern": "order.placed" })).await;
    amqp.next("belfry.ingest.dead").await;
    let log = belfry.log();
    assert!(!log.contains("refuse"), "{log}");
}

async fn user_without_configure_right_suffices_if_everything_is_declared(server: &RabbitServer) {
    let url = server.add_limited_user().await;
    let backends = Backends { database: None, broker: Some(server.fresh_prefix()) };
    let broker = backends.broker();
    let amqp = Amqp::connect(broker.url()).await;
    let start = async || backends.belfry().amqp(&url).setting("node.name", "one").start().await;

    // Nothing is declared yet, and Belfry has no right to declare it.
    let belfry = start().await;
    let line = belfry.log_line("RabbitMQ refuses access; retrying").await;
    assert!(line.contains("missing right `configure` on "), "{line}");
    let http = belfry.http();
    let checks = until("it is not ready", async || {
        let answer = http.get("/health/ready").await;
        let checks = answer.json()["checks"].clone();
        (answer.status == 503 && checks["database"] == "up").then_some(checks)
    })
    .await;
    assert_eq!(checks["broker_rights"], "down", "{checks}");

    // Three tasks consume queues: the ingest queue, the retry queues and the node queue. Each logs this once.
    let refusals = || belfry.log().matches("RabbitMQ refuses access; retrying").count();
    until_true("all tasks are refused", async || refusals() == 3).await;

    // Belfry retries, and finds everything declared.
    predeclare(&amqp, broker, "one").await;
    until_ready(&belfry).await;
    let ada = User::new("ada", &belfry);
    let device = signed_in(ada.node()).await;
    notify(&belfry, &ada, json!({ "id": "by-rest", "title": "Hi" })).await;
    assert_eq!(device.expect("notification:new").await["id"], "by-rest");
    let data = json!({ "userId": ada.id(), "id": "by-amqp", "title": "Hi" });
    let message = json!({ "pattern": "notification.create", "data": data });
    amqp.publish(
        &broker.ingest_queue(),
        "notification.create",
        data.to_string(),
        BasicProperties::default(),
    )
    .await;
    assert_eq!(device.expect("notification:new").await["id"], "by-amqp");
    amqp.send(&broker.ingest_queue(), &json!({ "pattern": "order.placed", "data": message })).await;
    let dead = amqp.next(&broker.dead_queue()).await;
    assert_eq!(dead.header("x-belfry-reason").unwrap(), "unknown_pattern");
    // The three refusals are the only errors in the log: the AMQP library logs none.
    let log = belfry.log();
    assert_eq!((refusals(), log.matches("\"ERROR\"").count()), (3, 3), "{log}");
}

/// The peak of the resident memory, and its current size, in MiB.
fn memory(belfry: &Belfry) -> [u64; 2] {
    let status = fs::read_to_string(format!("/proc/{}/status", belfry.pid())).unwrap();
    ["VmHWM:", "VmRSS:"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    })
}

/// Measures how the memory of a node grows with the messages in its queue. The node declares the queue and is
/// stopped, the test publishes messages, and the node starts again.
struct MemoryTest {
    backends: Backends,
    amqp: Amqp,
    belfry: Belfry,
    /// The resident memory without messages, in MiB.
    before: u64,
}

impl MemoryTest {
    async fn new() -> Self {
        let backends = Setup::Servers.backends().await;
        let broker = backends.broker();
        let amqp = Amqp::connect(broker.url()).await;
        let queue = broker.ingest_queue();
        let mut belfry = ready(backends.belfry().start().await).await;
        until_true("the queue exists", async || amqp.count(&queue).await.is_some()).await;
        let [_, before] = memory(&belfry);
        belfry.kill();
        Self { backends, amqp, belfry, before }
    }

    /// Publishes a transient message to the ingest queue.
    async fn publish(&self, body: impl AsRef<[u8]>) {
        let queue = self.backends.broker().ingest_queue();
        self.amqp.publish("", &queue, body, BasicProperties::default()).await;
    }

    async fn create(&self, data: &Value) {
        let message = json!({ "pattern": "notification.create", "data": data });
        self.publish(message.to_string()).await;
    }

    async fn restart(&mut self) {
        self.belfry.restart().await;
        until_ready(&self.belfry).await;
    }

    async fn until_unread(&self, user: &User, count: u64) {
        let http = user.http();
        until_at_least("more notifications are stored", count, async || {
            http.get("/v1/notifications/unread-count").await.json()["count"].as_u64().unwrap()
        })
        .await;
    }

    /// Checks that the memory has grown by at most 96 MiB since the restart.
    fn assert_bounded(&self) {
        const MAX_GROWTH: u64 = 96;
        let ([peak, _], before) = (memory(&self.belfry), self.before);
        println!("memory: {before} MiB before, {peak} MiB at most");
        assert!(peak - before <= MAX_GROWTH, "{before} MiB before, {peak} MiB at most");
    }
}

/// The messages, 400 MB together, are far larger than the memory that they may take.
#[tokio::test]
async fn many_large_messages_take_bounded_memory() {
    let mut node = MemoryTest::new().await;
    let ada = User::new("ada", &node.belfry);
    let padding = "x".repeat(100_000);
    for n in 0..1_000 {
        let id = format!("n{n}");
        node.create(&json!({ "userId": ada.id(), "id": id, "title": "Hi", "x": padding })).await;
    }
    let unreadable = vec![b'x'; 10_000_000];
    for _ in 0..30 {
        node.publish(&unreadable).await;
    }
    node.restart().await;
    node.until_unread(&ada, 1_000).await;
    let dead_queue = node.backends.broker().dead_queue();
    let dead = async || node.amqp.count(&dead_queue).await.unwrap_or_default().into();
    until_at_least("more of the largest messages are dead letters", 30, dead).await;
    assert_eq!(dead().await, 30);
    node.assert_bounded();
}

/// Each message becomes a notification for each of its 1,000 users.
#[tokio::test]
async fn messages_to_many_users_take_bounded_memory() {
    const MESSAGES: u64 = 12;
    let mut node = MemoryTest::new().await;
    let last = User::new("user999", &node.belfry);
    let mut users: Vec<_> = (0..999).map(|n| format!("user{n}")).collect();
    users.push(last.id().to_owned());
    let text = "x".repeat(3_000);
    for n in 0..MESSAGES {
        let id = format!("n{n}");
        node.create(&json!({ "userIds": users, "id": id, "title": "Hi", "message": text })).await;
    }
    node.restart().await;
    node.until_unread(&last, MESSAGES).await;
    node.assert_bounded();
}
