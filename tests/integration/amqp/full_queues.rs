//! Queues that reject messages because they are full.

use std::time::Duration;

use belfry_adapters::amqp::TopologySettings;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::rig::{Rig, Store};

/// A queue of that many messages that rejects others.
fn bounded(max_length: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(max_length));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments
}

async fn send_many_unreadable(rig: &Rig, count: usize) {
    let queue = rig.broker.ingest_queue();
    for _ in 0..count {
        rig.amqp.publish("", &queue, "unreadable", BasicProperties::default()).await;
    }
}

async fn others_are_stored(rig: &Rig, store: &Store) {
    for n in 0..20 {
        let data = json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
        rig.send("notification.create", data).await;
    }
    let stored = until_true("others are stored", async || store.ids("ada").await.len() == 20);
    timeout(Duration::from_secs(10), stored).await.expect("without a long wait");
}

#[tokio::test]
async fn full_dead_queue_holds_up_no_other_message() {
    let rig = Rig::new().await;
    let dead = rig.broker.dead_queue();
    rig.amqp.declare_queue(&dead, bounded(10)).await;
    let store = Store::new();
    let (publisher, connected) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.exists(&rig.broker.ingest_queue()).await;
    // More than the prefetch.
    send_many_unreadable(&rig, 1_200).await;
    others_are_stored(&rig, &store).await;

    // Once there is room, the others become dead letters too.
    let mut taken = 0;
    until_true("all are dead", async || {
        while rig.amqp.take(&dead).await.is_some() {
            taken += 1;
        }
        taken >= 100
    })
    .await;
    ingest.stop().await;
    connected.stop().await;
}

/// Publishes a message to the retry queue, and waits until its delay is over and the ingest queue has not accepted it.
async fn send_to_retry_queue(rig: &Rig, store: &Store) {
    let retry = format!("{}.retry.100ms", rig.broker.ingest_queue());
    rig.exists(&retry).await;
    let data = json!({ "userId": "ada", "id": "n1", "title": "Hi" });
    let message = json!({ "pattern": "notification.create", "data": data }).to_string();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    rig.amqp.publish("", &retry, message, persistent).await;
    sleep(Duration::from_millis(500)).await;
    assert!(store.ids("ada").await.is_empty());
}

#[tokio::test]
async fn message_that_the_full_ingest_queue_rejects_stays_in_its_retry_queue() {
    let rig = Rig::new().await;
    let queue = rig.broker.ingest_queue();
    rig.amqp.declare_queue(&queue, bounded(0)).await;
    let store = Store::new();
    let (publisher, connected) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.ingest_is_declared().await;
    send_to_retry_queue(&rig, &store).await;
    // RabbitMQ confirms a message that is on its way to a queue while the queue is deleted. So nothing may be
    // published to the queue now.
    ingest.stop().await;
    assert_eq!(rig.amqp.count(&format!("{queue}.retry.100ms")).await, Some(1));
    // Its owner declares the queue again, without a limit.
    rig.delete(&queue).await;
    rig.amqp.declare_queue(&queue, FieldTable::default()).await;
    let ingest = rig.ingest(&publisher, store.handler());
    until_true("it is stored", async || store.ids("ada").await == ["n1"]).await;
    rig.stop_all(ingest, connected).await;
}

#[tokio::test]
async fn message_returns_from_its_retry_queue_once_the_ingest_queue_exists() {
    let rig = Rig::new().await;
    let store = Store::new();
    let wait_for_queue =
        |topology: &mut TopologySettings| topology.ingest_declaration.passive = true;
    let (publisher, connected) = rig.publisher_with(wait_for_queue).await;
    let ingest =
        rig.ingest_with(&publisher, store.handler(), |topology, _| wait_for_queue(topology));
    send_to_retry_queue(&rig, &store).await;
    rig.amqp.declare_queue(&rig.broker.ingest_queue(), FieldTable::default()).await;
    until_true("it is stored", async || store.ids("ada").await == ["n1"]).await;
    rig.stop_all(ingest, connected).await;
}

#[tokio::test]
async fn full_retry_queue_holds_up_no_other_message() {
    let rig = Rig::new().await;
    for retry in ["retry.100ms", "retry.200ms"] {
        rig.amqp.declare_queue(&format!("{}.{retry}", rig.broker.ingest_queue()), bounded(0)).await;
    }
    rig.amqp.declare_queue(&rig.broker.dead_queue(), bounded(0)).await;
    let store = Store::new();
    let (publisher, connected) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.exists(&rig.broker.ingest_queue()).await;
    send_many_unreadable(&rig, 600).await;
    others_are_stored(&rig, &store).await;
    ingest.stop().await;
    connected.stop().await;
    let queue = rig.broker.ingest_queue();
    until_true("what no queue accepts is in the ingest queue again", async || {
        rig.amqp.count(&queue).await == Some(600)
    })
    .await;
}
