//! Queues, exchanges and bindings that exist otherwise than Belfry would declare them.

use std::time::Duration;

use belfry_application::ports::EventPublisher;
use belfry_tests::wait::until_true;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::sleep;

use super::events::{entry, revisions};
use super::rig::Rig;

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
async fn events_exchange_that_exists_otherwise_is_used_as_it_is() {
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
        let (publisher, connected) = rig.publisher().await;
        let events = rig.event_publisher(&publisher);
        let (delivery, node) = rig.node("a").await;
        for number in 1..=3 {
            let outcome = events.publish(&[entry("ada", number)]).await;
            assert_eq!(outcome.confirmed, 1, "{:?}", outcome.error);
        }
        until_true("all are delivered", async || revisions(&delivery) == [1, 2, 3]).await;
        // Longer than the publisher takes to notice a lost connection.
        sleep(Duration::from_millis(50)).await;
        assert!(publisher.is_ready(), "a refused declaration does not end the connection");
        node.stop().await;
        connected.stop().await;
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
    let (publisher, connected) = rig.publisher().await;
    let events = rig.event_publisher(&publisher);
    let ingest = rig.ingest(&publisher, super::rig::Store::new().handler());
    let queue = rig.broker.ingest_queue();
    rig.exists(&queue).await;
    // Dead-lettering and publishing alternate on two channels of one connection.
    for number in 1..=5 {
        rig.amqp.publish("", &queue, "unreadable", lapin::BasicProperties::default()).await;
        let outcome = events.publish(&[entry("ada", number)]).await;
        assert_eq!(outcome.confirmed, 1, "{:?}", outcome.error);
    }
    let dead = rig.broker.dead_queue();
    until_true("all are dead", async || rig.amqp.count(&dead).await == Some(5)).await;
    rig.stop_all(ingest, connected).await;
}
