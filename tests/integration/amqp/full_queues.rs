//! Queues that reject messages because they are full.

use std::time::Duration;

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

#[tokio::test]
async fn message_returns_from_its_retry_queue_once_the_ingest_queue_accepts_it() {
    let rig = Rig::new().await;
    let queue = rig.broker.ingest_queue();
    rig.amqp.declare_queue(&queue, bounded(0)).await;
    let store = Store::new();
    let (publisher, connected) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.ingest_is_declared().await;
    let data = json!({ "userId": "ada", "id": "n1", "title": "Hi" });
    let message = json!({ "pattern": "notification.create", "data": data }).to_string();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    rig.amqp.publish("", &format!("{queue}.retry.100ms"), message, persistent).await;
    // Its delay is over, and the full queue rejects it.
    sleep(Duration::from_millis(500)).await;
    assert!(store.ids("ada").await.is_empty());
    // Its owner declares the queue again, without a limit.
    rig.delete(&queue).await;
    rig.amqp.declare_queue(&queue, FieldTable::default()).await;
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
