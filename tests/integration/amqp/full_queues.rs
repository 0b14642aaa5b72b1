//! Queues that reject messages because they are full.

use std::time::Duration;

use belfry_adapters::amqp::TopologySettings;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::rig::{Rig, Store};

/// Arguments of a queue that holds at most `max_length` messages and rejects further ones.
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

async fn assert_others_are_stored(rig: &Rig, store: &Store) {
    for n in 0..20 {
        let data = json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
        rig.send("notification.create", data).await;
    }
    let stored = until_true("others are stored", async || store.ids("ada").await.len() == 20);
    timeout(Duration::from_secs(10), stored).await.expect("other messages are not held up");
}

#[tokio::test]
async fn full_dead_queue_holds_up_no_other_message() {
    let rig = Rig::new().await;
    let dead = rig.broker.dead_queue();
    rig.amqp.declare_queue(&dead, bounded(10)).await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_queue(&rig.broker.ingest_queue()).await;
    // More than the prefetch of 1000.
    send_many_unreadable(&rig, 1_200).await;
    assert_others_are_stored(&rig, &store).await;

    // While the test makes room, further messages become dead letters.
    let mut taken = 0;
    until_true("100 messages are dead", async || {
        while rig.amqp.take(&dead).await.is_some() {
            taken += 1;
        }
        taken >= 100
    })
    .await;
    ingest.stop().await;
    publisher_task.stop().await;
}

/// Publishes a message to the retry queue of 100 ms, and waits for longer than this delay. The message is not
/// stored, because the ingest queue does not accept it.
async fn send_to_retry_queue(rig: &Rig, store: &Store) {
    let retry = format!("{}.retry.100ms", rig.broker.ingest_queue());
    rig.wait_for_queue(&retry).await;
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
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    send_to_retry_queue(&rig, &store).await;
    // When RabbitMQ deletes a queue, it confirms the messages that are on their way to it. So Belfry must not
    // publish to the queue now.
    ingest.stop().await;
    assert_eq!(rig.amqp.count(&format!("{queue}.retry.100ms")).await, Some(1));
    // Its owner declares the queue again, without a limit.
    rig.delete(&queue).await;
    rig.amqp.declare_queue(&queue, FieldTable::default()).await;
    let ingest = rig.ingest(&publisher, store.handler());
    until_true("it is stored", async || store.ids("ada").await == ["n1"]).await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn message_returns_from_its_retry_queue_once_the_ingest_queue_exists() {
    let rig = Rig::new().await;
    let store = Store::new();
    let declare_passively =
        |topology: &mut TopologySettings| topology.ingest_declaration.passive = true;
    let (publisher, publisher_task) = rig.publisher_with(declare_passively).await;
    let ingest =
        rig.ingest_with(&publisher, store.handler(), |topology, _| declare_passively(topology));
    send_to_retry_queue(&rig, &store).await;
    rig.amqp.declare_queue(&rig.broker.ingest_queue(), FieldTable::default()).await;
    until_true("it is stored", async || store.ids("ada").await == ["n1"]).await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn full_retry_queue_holds_up_no_other_message() {
    let rig = Rig::new().await;
    for retry in ["retry.100ms", "retry.200ms"] {
        rig.amqp.declare_queue(&format!("{}.{retry}", rig.broker.ingest_queue()), bounded(0)).await;
    }
    rig.amqp.declare_queue(&rig.broker.dead_queue(), bounded(0)).await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_queue(&rig.broker.ingest_queue()).await;
    send_many_unreadable(&rig, 600).await;
    assert_others_are_stored(&rig, &store).await;
    ingest.stop().await;
    publisher_task.stop().await;
    let queue = rig.broker.ingest_queue();
    until_true("the rejected messages are in the ingest queue again", async || {
        rig.amqp.count(&queue).await == Some(600)
    })
    .await;
}
