//! Queues and exchanges that already exist with other properties than Belfry would declare, or that another service
//! declares, and declarations as configured.

use std::time::Duration;

use belfry_application::ports::EventPublisher;
use belfry_tests::wait::until_true;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio::time::sleep;

use super::events::{entry, revisions};
use super::rig::{Rig, Store};

async fn declare_exchange(
    rig: &Rig,
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
    arguments: FieldTable,
) {
    let exchange = rig.broker.events_exchange();
    let declaring =
        rig.amqp.channel().exchange_declare(exchange.as_str().into(), kind, options, arguments);
    declaring.await.unwrap();
}

#[tokio::test]
async fn events_exchange_with_other_properties_is_used_unchanged() {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let mut alternate = FieldTable::default();
    alternate.insert("alternate-exchange".into(), AMQPValue::LongString("amq.fanout".into()));
    for (kind, options, arguments) in [
        (ExchangeKind::Topic, durable, alternate),
        (ExchangeKind::Fanout, durable, FieldTable::default()),
        (ExchangeKind::Topic, ExchangeDeclareOptions::default(), FieldTable::default()),
    ] {
        let rig = Rig::new().await;
        declare_exchange(&rig, kind, options, arguments).await;
        let (publisher, publisher_task) = rig.publisher().await;
        let events = rig.event_publisher(&publisher);
        let (delivery, node) = rig.node("a").await;
        for number in 1..=3 {
            let result = events.publish(&[entry("ada", number)]).await;
            assert_eq!(result.confirmed, 1, "{:?}", result.error);
        }
        until_true("all are delivered", async || revisions(&delivery) == [1, 2, 3]).await;
        // The publisher would notice a lost connection within this time.
        sleep(Duration::from_millis(50)).await;
        assert!(publisher.is_ready(), "a refused declaration has ended the connection");
        node.stop().await;
        publisher_task.stop().await;
    }
}

#[tokio::test]
async fn refused_declaration_does_not_disturb_other_channels() {
    let rig = Rig::new().await;
    rig.amqp
        .declare_queue(&rig.broker.dead_queue(), {
            let mut arguments = FieldTable::default();
            arguments.insert("x-max-length".into(), AMQPValue::LongInt(1_000));
            arguments
        })
        .await;
    let (publisher, publisher_task) = rig.publisher().await;
    let events = rig.event_publisher(&publisher);
    let ingest = rig.ingest(&publisher, Store::new().handler());
    let queue = rig.broker.ingest_queue();
    rig.wait_for_queue(&queue).await;
    // Dead-lettering and publishing alternate on two channels of one connection.
    for number in 1..=5 {
        rig.amqp.publish("", &queue, "unreadable", lapin::BasicProperties::default()).await;
        let result = events.publish(&[entry("ada", number)]).await;
        assert_eq!(result.confirmed, 1, "{:?}", result.error);
    }
    let dead = rig.broker.dead_queue();
    until_true("all are dead", async || rig.amqp.count(&dead).await == Some(5)).await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn ingest_waits_for_a_queue_that_another_service_declares() {
    let rig = Rig::new().await;
    let queue = rig.broker.ingest_queue();
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest_with(&publisher, store.handler(), |topology, _| {
        topology.ingest_declaration.passive = true;
    });
    // Belfry would have declared the queue within this time.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.amqp.count(&queue).await, None);
    let declare = async || {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-priority".into(), AMQPValue::LongInt(10));
        rig.amqp.declare_queue(&queue, arguments).await;
    };
    for id in ["first", "second"] {
        declare().await;
        rig.send("notification.create", json!({ "userId": "ada", "id": id, "title": "Hi" })).await;
        until_true("it is stored", async || store.ids("ada").await.contains(&id.to_owned())).await;
        rig.delete(&queue).await;
        sleep(Duration::from_millis(700)).await;
        assert_eq!(rig.amqp.count(&queue).await, None, "Belfry has declared the queue");
    }
    ingest.stop().await;
    publisher_task.stop().await;
}

#[tokio::test]
async fn deleted_queue_with_other_properties_is_not_declared_by_belfry() {
    let rig = Rig::new().await;
    let queue = rig.broker.ingest_queue();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::LongInt(10));
    rig.amqp.declare_queue(&queue, arguments.clone()).await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    rig.delete(&queue).await;
    sleep(Duration::from_millis(700)).await;
    assert_eq!(rig.amqp.count(&queue).await, None, "Belfry has declared the queue");
    // So the owner can declare it with its own arguments.
    rig.amqp.declare_queue(&queue, arguments).await;
    rig.send("notification.create", json!({ "userId": "ada", "id": "n1", "title": "Hi" })).await;
    until_true("it is stored", async || store.ids("ada").await == ["n1"]).await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn ingest_queue_is_declared_and_bound_as_configured() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let [topic, direct, fanout] = ["t", "d", "f"].map(|name| rig.broker.name(name));
    for exchange in [&topic, &direct, &fanout] {
        rig.broker.will_delete_exchange(exchange);
    }
    let bindings = [
        format!("topic:{topic}:notification.*"),
        format!("direct:{direct}:notification.created"),
        format!("fanout:{fanout}"),
    ];
    let ingest = rig.ingest_with(&publisher, store.handler(), |settings, _| {
        settings.ingest_declaration.auto_delete = true;
        settings.ingest_declaration.arguments = vec!["x-max-priority=10".parse().unwrap()];
        settings.ingest_bindings = bindings.iter().map(|text| text.parse().unwrap()).collect();
    });
    rig.wait_for_ingest().await;
    // The broker would refuse this declaration if the queue had other properties.
    let options =
        QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::LongInt(10));
    let queue = rig.broker.ingest_queue();
    rig.amqp.channel().queue_declare(queue.into(), options, arguments).await.unwrap();
    for (exchange, id) in [(&topic, "topic"), (&direct, "direct"), (&fanout, "fanout")] {
        let body = json!({ "userId": "ada", "id": id, "title": "Hi" }).to_string();
        let properties = lapin::BasicProperties::default();
        rig.amqp.publish(exchange, "notification.created", body, properties).await;
    }
    until_true("all are stored", async || store.ids("ada").await.len() == 3).await;
    ingest.stop().await;
    let is_deleted = async || rig.amqp.count(&rig.broker.ingest_queue()).await.is_none();
    until_true("the queue is deleted with its last consumer", is_deleted).await;
    publisher_task.stop().await;
}
