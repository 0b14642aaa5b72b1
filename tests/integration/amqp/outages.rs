//! Broken connections, a stopped broker, deleted queues and a store that is down lose no message.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use belfry_adapters::amqp::{AmqpSettings, Publisher};
use belfry_application::ports::PageLimit;
use belfry_application::testing::RecordingDelivery;
use belfry_application::use_cases::{RelayOutbox, RelaySettings};
use belfry_tests::proxy::Proxy;
use belfry_tests::rabbit::RabbitServer;
use belfry_tests::wait::until_true;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::events::revisions;
use super::rig::{Latch, Rig, Running, Store};

/// All tasks on the path of an event: from the ingest queue into the store, and from the store's outbox through the
/// node's queue to the delivery.
struct EventPath {
    store: Arc<Store>,
    delivery: Arc<RecordingDelivery>,
    running: Vec<Running>,
}

impl EventPath {
    async fn start(rig: &Rig) -> Self {
        let store = Arc::new(Store::new());
        let (publisher, publisher_task) = rig.publisher().await;
        let (delivery, node) = rig.node("a").await;
        let ingest = rig.ingest(&publisher, store.handler());
        let settings = RelaySettings {
            batch: PageLimit::rows(50),
            patience: Duration::from_millis(20),
            max_backoff: Duration::from_millis(200),
            ..RelaySettings::default()
        };
        let events = Arc::new(rig.event_publisher(&publisher));
        let relay = RelayOutbox::new(store.inner.clone(), events, settings);
        let relay = Running::start(|stop| async move { relay.run(stop).await });
        rig.wait_for_ingest().await;
        Self { store, delivery, running: vec![ingest, relay, node, publisher_task] }
    }

    /// Waits until `count` notifications are stored and delivered, and checks that none is missing or out of order.
    async fn assert_delivers(&self, count: usize) {
        until_true("all are stored", async || self.store.ids("ada").await.len() >= count).await;
        until_true("all are delivered", async || {
            self.delivered().last().is_some_and(|last| *last >= count as u64)
        })
        .await;
        assert_eq!(self.store.ids("ada").await.len(), count, "more are stored than were sent");
        let delivered: Vec<_> = self.delivered().into_iter().collect();
        assert_eq!(delivered, (1..=count as u64).collect::<Vec<_>>());
        // Duplicates are allowed, gaps and reordering are not.
        let mut newest = 0;
        for revision in revisions(&self.delivery) {
            assert!(revision <= newest + 1, "{revision} followed {newest}");
            newest = newest.max(revision);
        }
    }

    fn delivered(&self) -> BTreeSet<u64> {
        revisions(&self.delivery).into_iter().collect()
    }

    async fn stop(self) {
        for running in self.running {
            running.stop().await;
        }
    }
}

async fn send(rig: &Rig, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let data = json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
        rig.send("notification.create", data).await;
    }
}

#[tokio::test]
async fn repeatedly_cut_connections_lose_no_event() {
    let rig = Rig::new().await;
    let proxy = Proxy::to(rig.broker.url()).await;
    let rig = rig.via(proxy.url());
    let path = EventPath::start(&rig).await;
    let cutting = async {
        for _ in 0..8 {
            sleep(Duration::from_millis(150)).await;
            proxy.cut();
        }
    };
    let sending = async {
        for n in 0..60 {
            send(&rig, n * 20..(n + 1) * 20).await;
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(cutting, sending);
    path.assert_delivers(1_200).await;
    path.stop().await;
}

#[tokio::test]
async fn unreachable_broker_is_reconnected() {
    let rig = Rig::new().await;
    let proxy = Proxy::to(rig.broker.url()).await;
    let rig = rig.via(proxy.url());
    let path = EventPath::start(&rig).await;
    send(&rig, 0..10).await;
    path.assert_delivers(10).await;
    proxy.close();
    send(&rig, 10..20).await;
    sleep(Duration::from_secs(1)).await;
    proxy.open();
    path.assert_delivers(20).await;
    path.stop().await;
}

#[tokio::test]
async fn stopped_or_killed_broker_loses_no_confirmed_message() {
    let server = RabbitServer::start_own().await;
    let mut rig = Rig::on(server.fresh_prefix()).await;
    let path = EventPath::start(&rig).await;
    let mut sent = 0;
    for kill in [false, true] {
        send(&rig, sent..sent + 100).await;
        sent += 100;
        if kill {
            server.kill().await;
        } else {
            server.stop().await;
        }
        server.start().await;
        rig.amqp = belfry_tests::amqp::Amqp::connect(rig.broker.url()).await;
    }
    send(&rig, sent..sent + 100).await;
    path.assert_delivers(sent + 100).await;
    path.stop().await;
}

#[tokio::test]
async fn deleted_queues_and_exchanges_are_declared_again() {
    let rig = Rig::new().await;
    let path = EventPath::start(&rig).await;
    send(&rig, 0..10).await;
    path.assert_delivers(10).await;

    let (ingest, node) = (rig.broker.ingest_queue(), rig.broker.node_queue("a"));
    for queue in [&ingest, &node] {
        rig.delete(queue).await;
        rig.wait_for_queue(queue).await;
    }
    send(&rig, 10..20).await;
    path.assert_delivers(20).await;

    let exchange = rig.broker.events_exchange();
    let options = lapin::options::ExchangeDeleteOptions::default();
    rig.amqp.channel().exchange_delete(exchange.as_str().into(), options).await.unwrap();
    rig.delete(&node).await;
    rig.wait_for_queue(&node).await;
    send(&rig, 20..30).await;
    path.assert_delivers(30).await;
    path.stop().await;
}

/// A deleted queue also loses its unacknowledged messages. Then only Belfry still has them.
#[tokio::test]
async fn ingest_queue_deleted_during_a_store_outage_loses_no_delivered_message() {
    let rig = Rig::new().await;
    let store = Store::new();
    store.set_down(true);
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();
    // Fewer than the prefetch, so that all are delivered.
    send(&rig, 0..250).await;
    until_true("all are delivered to Belfry", async || rig.amqp.count(&queue).await == Some(0))
        .await;
    until_true("the store was called", async || store.calls_while_down() > 2).await;

    for deleted in 1..=2 {
        rig.delete(&queue).await;
        rig.wait_for_queue(&queue).await;
        send(&rig, 250 + (deleted - 1) * 10..250 + deleted * 10).await;
        until_true("the new messages are delivered to Belfry", async || {
            rig.amqp.count(&queue).await == Some(0)
        })
        .await;
    }
    store.set_down(false);
    until_true("all are stored", async || store.ids("ada").await.len() == 270).await;
    send(&rig, 270..280).await;
    until_true("later messages are stored", async || store.ids("ada").await.len() == 280).await;
    rig.stop_all(ingest, publisher_task).await;
    assert_eq!(store.created(), 280, "messages were delivered again");
}

#[tokio::test]
async fn ingest_queue_deleted_during_a_batch_loses_no_delivered_message() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let latch = Latch::closed();
    let ingest = rig.ingest(&publisher, latch.before(store.handler()));
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();
    send(&rig, 0..1).await;
    until_true("the first batch is in progress", async || latch.waiting() == 1).await;
    send(&rig, 1..100).await;
    until_true("all are delivered to Belfry", async || rig.amqp.count(&queue).await == Some(0))
        .await;

    rig.delete(&queue).await;
    latch.open();
    rig.wait_for_queue(&queue).await;
    send(&rig, 100..120).await;
    until_true("all are stored", async || store.ids("ada").await.len() == 120).await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn ingest_queue_deleted_repeatedly_under_load_loses_no_delivered_message() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();
    let mut sent = 0;
    for round in 0..10 {
        // While one message fails and stays pending, the others are acknowledged one by one.
        let name = format!("n{}", sent + 5);
        store.fail_for(&[name.as_str()]);
        send(&rig, sent..sent + 40).await;
        sent += 40;
        until_true("all are delivered to Belfry", async || rig.amqp.count(&queue).await == Some(0))
            .await;
        rig.delete(&queue).await;
        store.fail_for(&[]);
        rig.wait_for_queue(&queue).await;
        if round % 2 == 0 {
            until_true("all are stored", async || store.ids("ada").await.len() == sent).await;
        }
    }
    until_true("all are stored", async || store.ids("ada").await.len() == sent).await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn deleted_dead_queue_is_declared_again_for_the_next_dead_letter() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let dead = rig.broker.dead_queue();
    for _ in 0..2 {
        rig.send("nonsense", json!({})).await;
        rig.wait_for_queue(&dead).await;
        assert_eq!(rig.amqp.next(&dead).await.json()["pattern"], "nonsense");
        rig.delete(&dead).await;
    }
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn connections_to_an_unresponsive_broker_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (accepted, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counters = (accepted.clone(), closed.clone());
    let silent = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            counters.0.fetch_add(1, Ordering::SeqCst);
            let closed = counters.1.clone();
            tokio::spawn(async move {
                let _ = client.read_to_end(&mut vec![]).await;
                closed.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let rig = Rig::new().await.via(&url);
    let connect_timeout = Duration::from_millis(50);
    let settings = AmqpSettings { connect_timeout, ..rig.settings() };
    let publisher = Publisher::new(settings, rig.topology("a"));
    let running = Running::start(|stop| async move { publisher.run(stop).await });
    until_true("it has connected a few times", async || accepted.load(Ordering::SeqCst) >= 4).await;
    running.stop().await;
    until_true("every connection is closed", async || {
        closed.load(Ordering::SeqCst) == accepted.load(Ordering::SeqCst)
    })
    .await;
    silent.abort();
}
