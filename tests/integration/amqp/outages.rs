use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use belfry_adapters::amqp::{AmqpSettings, Publisher};
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
use super::rig::{Gate, Rig, Running, Store};

/// All of Belfry's way: from the ingest queue into the store, from its outbox to the node's queue.
struct Whole {
    store: Arc<Store>,
    delivery: Arc<RecordingDelivery>,
    running: Vec<Running>,
}

impl Whole {
    async fn start(rig: &Rig) -> Self {
        let store = Arc::new(Store::new());
        let (publisher, connected) = rig.publisher().await;
        let (delivery, node) = rig.node("a").await;
        let ingest = rig.ingest(&publisher, store.handling());
        let pace = RelaySettings {
            batch_size: 50,
            patience: Duration::from_millis(20),
            max_backoff: Duration::from_millis(200),
            ..RelaySettings::default()
        };
        let events = Arc::new(rig.event_publisher(&publisher));
        let relay = RelayOutbox::new(store.inner.clone(), events, pace);
        let relay = Running::start(|stop| async move { relay.run(stop).await });
        rig.ingest_is_declared().await;
        Self { store, delivery, running: vec![ingest, relay, node, connected] }
    }

    /// Waits until so many notifications have come all the way, and checks that each did, in order.
    async fn brings(&self, count: usize) {
        until_true("all are stored", async || self.store.ids("ada").await.len() >= count).await;
        until_true("all are told", async || {
            self.told().last().is_some_and(|last| *last >= count as u64)
        })
        .await;
        assert_eq!(self.store.ids("ada").await.len(), count, "each is stored once");
        let told: Vec<_> = self.told().into_iter().collect();
        assert_eq!(told, (1..=count as u64).collect::<Vec<_>>());
        // One may be told twice, but none for the first time after one that follows it.
        let mut newest = 0;
        for revision in revisions(&self.delivery) {
            assert!(revision <= newest + 1, "{revision} came right after {newest}");
            newest = newest.max(revision);
        }
    }

    fn told(&self) -> BTreeSet<u64> {
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
async fn connections_that_are_cut_again_and_again_lose_nothing() {
    let rig = Rig::new().await;
    let proxy = Proxy::to(rig.broker.url()).await;
    let rig = rig.by_way_of(proxy.url());
    let whole = Whole::start(&rig).await;
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
    whole.brings(1_200).await;
    whole.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_out_of_reach_for_a_while_is_found_again() {
    let rig = Rig::new().await;
    let proxy = Proxy::to(rig.broker.url()).await;
    let rig = rig.by_way_of(proxy.url());
    let whole = Whole::start(&rig).await;
    send(&rig, 0..10).await;
    whole.brings(10).await;
    proxy.close();
    send(&rig, 10..20).await;
    sleep(Duration::from_secs(1)).await;
    proxy.open();
    whole.brings(20).await;
    whole.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_stopped_or_killed_loses_nothing_it_confirmed() {
    let server = RabbitServer::start_own().await;
    let mut rig = Rig::on(server.fresh_prefix()).await;
    let whole = Whole::start(&rig).await;
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
    whole.brings(sent + 100).await;
    whole.stop().await;
}

#[tokio::test]
async fn queues_and_exchanges_that_are_deleted_are_made_again() {
    let rig = Rig::new().await;
    let whole = Whole::start(&rig).await;
    send(&rig, 0..10).await;
    whole.brings(10).await;

    let (ingest, node) = (rig.broker.ingest_queue(), rig.broker.node_queue("a"));
    for queue in [&ingest, &node] {
        rig.delete(queue).await;
        rig.exists(queue).await;
    }
    send(&rig, 10..20).await;
    whole.brings(20).await;

    let exchange = rig.broker.events_exchange();
    let options = lapin::options::ExchangeDeleteOptions::default();
    rig.amqp.channel().exchange_delete(exchange.as_str().into(), options).await.unwrap();
    rig.delete(&node).await;
    rig.exists(&node).await;
    send(&rig, 20..30).await;
    whole.brings(30).await;
    whole.stop().await;
}

/// A deleted queue takes with it what was handed out and is not acknowledged: only Belfry has it then.
#[tokio::test]
async fn an_ingest_queue_that_is_deleted_while_the_store_is_down_comes_back_and_loses_nothing() {
    let rig = Rig::new().await;
    let store = Store::new();
    store.goes_down(true);
    let (publisher, connected) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handling());
    rig.ingest_is_declared().await;
    let queue = rig.broker.ingest_queue();
    // More than Belfry tries together, and less than are handed out ahead of their acknowledgement.
    send(&rig, 0..250).await;
    until_true("all are handed out", async || rig.amqp.count(&queue).await == Some(0)).await;
    until_true("and tried", async || store.calls_while_down() > 2).await;

    for deleted in 1..=2 {
        rig.delete(&queue).await;
        rig.exists(&queue).await;
        send(&rig, 250 + (deleted - 1) * 10..250 + deleted * 10).await;
        until_true("it is consumed", async || rig.amqp.count(&queue).await == Some(0)).await;
    }
    store.goes_down(false);
    until_true("all are stored", async || store.ids("ada").await.len() == 270).await;
    send(&rig, 270..280).await;
    until_true("and what follows", async || store.ids("ada").await.len() == 280).await;
    rig.ends_with_nothing_left(ingest, connected).await;
    assert_eq!(store.done(), 280, "none was acknowledged wrongly, so that it came again");
}

#[tokio::test]
async fn an_ingest_queue_that_is_deleted_while_messages_are_done_loses_none_of_them() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, connected) = rig.publisher().await;
    let gate = Gate::closed();
    let ingest = rig.ingest(&publisher, gate.before(store.handling()));
    rig.ingest_is_declared().await;
    let queue = rig.broker.ingest_queue();
    send(&rig, 0..1).await;
    until_true("the first is under way", async || gate.waiting() == 1).await;
    send(&rig, 1..100).await;
    until_true("the rest is handed out", async || rig.amqp.count(&queue).await == Some(0)).await;

    rig.delete(&queue).await;
    gate.open();
    rig.exists(&queue).await;
    send(&rig, 100..120).await;
    until_true("all are stored", async || store.ids("ada").await.len() == 120).await;
    rig.ends_with_nothing_left(ingest, connected).await;
}

#[tokio::test]
async fn an_ingest_queue_that_is_deleted_again_and_again_under_load_loses_nothing_in_hand() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, connected) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handling());
    rig.ingest_is_declared().await;
    let queue = rig.broker.ingest_queue();
    let mut sent = 0;
    for round in 0..10 {
        // With one of them failing, its neighbours are acknowledged one by one while it is held.
        let name = format!("n{}", sent + 5);
        store.fails_for(&[name.as_str()]);
        send(&rig, sent..sent + 40).await;
        sent += 40;
        until_true("all are handed out", async || rig.amqp.count(&queue).await == Some(0)).await;
        rig.delete(&queue).await;
        store.fails_for(&[]);
        rig.exists(&queue).await;
        if round % 2 == 0 {
            until_true("all are stored", async || store.ids("ada").await.len() == sent).await;
        }
    }
    until_true("all are stored", async || store.ids("ada").await.len() == sent).await;
    rig.ends_with_nothing_left(ingest, connected).await;
}

#[tokio::test]
async fn a_dead_queue_that_is_deleted_is_made_again_before_it_is_needed() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, connected) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handling());
    rig.ingest_is_declared().await;
    let dead = rig.broker.dead_queue();
    for _ in 0..2 {
        rig.send("nonsense", json!({})).await;
        rig.exists(&dead).await;
        assert_eq!(rig.amqp.next(&dead).await.json()["pattern"], "nonsense");
        rig.delete(&dead).await;
    }
    rig.ends_with_nothing_left(ingest, connected).await;
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_left_alone_in_good_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (came, left) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counted = (came.clone(), left.clone());
    let silent = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            counted.0.fetch_add(1, Ordering::SeqCst);
            let left = counted.1.clone();
            tokio::spawn(async move {
                let _ = client.read_to_end(&mut vec![]).await;
                left.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let rig = Rig::new().await.by_way_of(&url);
    let connect_timeout = Duration::from_millis(50);
    let settings = AmqpSettings { connect_timeout, ..rig.settings() };
    let publisher = Publisher::new(settings, rig.topology("a"));
    let running = Running::start(|stop| async move { publisher.run(stop).await });
    until_true("it has come a few times", async || came.load(Ordering::SeqCst) >= 4).await;
    running.stop().await;
    until_true("and has left each time", async || {
        left.load(Ordering::SeqCst) == came.load(Ordering::SeqCst)
    })
    .await;
    silent.abort();
}
