//! Events are published to the events exchange, and each node delivers the events of its own queue.

use std::sync::Arc;
use std::time::Duration;

use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_adapters::wire::EventForm;
use belfry_application::ports::{
    EventHeader, EventPublisher, InboxRepository, Outbox, OutboxEntry, OutboxId, PageLimit,
};
use belfry_application::testing::{RecordingDelivery, a_draft, at, id, user};
use belfry_domain::{Change, Data, DomainEvent, Draft, Receipt, Revision, UnreadCount};
use belfry_tests::postgres::fresh_database;
use belfry_tests::wait::{PATIENCE, until_true};
use lapin::BasicProperties;
use serde_json::json;
use tokio::time::timeout;

use super::rig::{NodeQueueState, Rig, Running};

/// An outbox entry for a new notification. `number` is its revision, its unread count and a part of its id.
pub(super) fn entry(name: &str, number: u64) -> OutboxEntry {
    let revision = Revision::new(number);
    let notification = a_draft(name, &format!("n{number}")).into_notification(revision);
    let change = Change::Created(Box::new(notification));
    let unread = UnreadCount::new(number);
    let event = DomainEvent { user: user(name), revision, unread, change };
    OutboxEntry {
        id: OutboxId(number.cast_signed()),
        header: EventHeader::of(&event),
        body: EventForm::write(&event).into(),
        written_at: at(1_234_567),
        trace: None,
    }
}

/// The revisions of all delivered events, in the order of delivery.
pub(super) fn revisions(delivery: &RecordingDelivery) -> Vec<u64> {
    delivery.delivered().iter().filter_map(|(_, batch)| Some(batch.revision?.get())).collect()
}

#[tokio::test]
async fn published_events_are_delivered_by_every_node_in_order() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let events = rig.event_publisher(&publisher);
    let ((delivery_a, node_a), (delivery_b, node_b)) = tokio::join!(rig.node("a"), rig.node("b"));

    for batch in 0..4 {
        let entries: Vec<_> = (1..=500).map(|n| entry("ada", batch * 500 + n)).collect();
        let result = events.publish(&entries).await;
        assert_eq!((result.confirmed, result.error.is_none()), (500, true));
    }
    let all: Vec<_> = (1..=2_000).collect();
    for delivery in [delivery_a, delivery_b] {
        until_true("all are delivered", async || delivery.delivered().len() == 2_000).await;
        assert_eq!(revisions(&delivery), all);
        assert!(delivery.delivered().iter().all(|(room, _)| room.user() == &user("ada")));
    }
    node_a.stop().await;
    node_b.stop().await;
    for node in ["a", "b"] {
        let left = rig.amqp.count(&rig.broker.node_queue(node)).await;
        assert_eq!(left, Some(0), "delivered events are not acknowledged");
    }
    publisher_task.stop().await;
}

#[tokio::test]
async fn published_event_has_the_documented_form() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let events = rig.event_publisher(&publisher);
    // The first publish declares the exchange. The broker confirms the event although no queue is bound yet.
    assert_eq!(events.publish(&[entry("ada", 1)]).await.confirmed, 1);
    let tap = rig.amqp.tap(&rig.broker.events_exchange(), "notification.#").await;
    events.publish(&[entry("ada", 2)]).await;

    let message = rig.amqp.next(&tap).await;
    assert_eq!(message.routing_key, "notification.created");
    assert_eq!(message.json()["pattern"], "notification.created");
    assert_eq!(message.json()["data"]["notification"]["id"], "n2");
    assert!(message.json().get("id").is_none(), "NestJS would take the event for a request");
    let properties = &message.properties;
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(*properties.timestamp(), Some(1_234));
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "ada:2");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "notification.created");
    assert!(message.header("traceparent").unwrap().starts_with("00-"));
    publisher_task.stop().await;
}

/// The transaction of a change writes the event as text, and the message of the broker contains the same text.
#[tokio::test]
async fn stored_event_is_published_byte_for_byte() {
    let database = fresh_database().await;
    let store = PostgresStore::connect(PostgresSettings::new(database.url())).await.unwrap();
    store.migrate().await.unwrap();
    let (ada, n1) = (user("ada"), [id("n1")]);
    let data = Data::from_valid_json(r#"{"z":1.0,"a":"\u00e4 \u2028","a":[ ]}"#).unwrap();
    let draft = Draft { data: Some(data), ..a_draft("ada", "n1") };
    let receipts = store.create(vec![draft, a_draft("ada", "n2")]).await.unwrap();
    let created = receipts.into_iter().filter_map(|receipt| match receipt {
        Receipt::Created(event) => Some(event),
        Receipt::Duplicate(_) | Receipt::Deleted(_) => None,
    });
    let mut events: Vec<_> = created.collect();
    events.extend(store.mark_read(&ada, &n1, at(1_000)).await.unwrap().event);
    events.extend(store.mark_all_read(&ada, at(2_000)).await.unwrap());
    events.extend(store.delete(&ada, &n1, at(3_000)).await.unwrap());
    let expected: Vec<_> = events.iter().map(EventForm::write).collect();

    let stored: Vec<String> = sqlx::query_scalar("SELECT event::text FROM outbox ORDER BY id")
        .fetch_all(&database.pool().await)
        .await
        .unwrap();
    assert_eq!(stored, expected);

    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let event_publisher = rig.event_publisher(&publisher);
    // The first publish declares the exchange.
    assert_eq!(event_publisher.publish(&[entry("ada", 1)]).await.confirmed, 1);
    let tap = rig.amqp.tap(&rig.broker.events_exchange(), "notification.#").await;
    let entries = store
        .acquire_lease()
        .await
        .unwrap()
        .unwrap()
        .pending(PageLimit::rows(10))
        .await
        .unwrap()
        .items;
    assert_eq!(event_publisher.publish(&entries).await.confirmed, 5);
    for (event, body) in events.iter().zip(expected) {
        let message = rig.amqp.next(&tap).await;
        assert_eq!(String::from_utf8(message.body).unwrap(), body);
        assert_eq!(message.routing_key, event.name());
        assert_eq!(message.properties.kind().as_ref().unwrap().as_str(), event.name());
        let message_id = format!("ada:{}", event.revision);
        assert_eq!(message.properties.message_id().as_ref().unwrap().as_str(), message_id);
    }
    publisher_task.stop().await;
    store.close().await;
}

#[tokio::test]
async fn publisher_without_a_broker_fails_at_once() {
    // Nothing listens on port 1.
    let rig = Rig::new().await.via("amqp://guest:guest@127.0.0.1:1/%2f");
    let publisher = belfry_adapters::amqp::Publisher::new(rig.settings(), rig.topology("a"));
    let events = rig.event_publisher(&publisher);
    let running = Running::start({
        let publisher = publisher.clone();
        |stop| async move { publisher.run(stop).await }
    });
    let entries = [entry("ada", 1)];
    let result = timeout(Duration::from_secs(1), events.publish(&entries)).await;
    let result = result.expect("it does not wait for a connection");
    assert_eq!(result.confirmed, 0);
    assert!(result.error.unwrap().to_string().starts_with("unavailable"));
    running.stop().await;
}

#[tokio::test]
async fn publisher_with_tls_on_a_plain_port_does_not_become_ready() {
    let rig = Rig::new().await;
    let url = rig.broker.url().replacen("amqp://", "amqps://", 1);
    let rig = rig.via(&url);
    let publisher = belfry_adapters::amqp::Publisher::new(rig.settings(), rig.topology("a"));
    let running = Running::start({
        let publisher = publisher.clone();
        |stop| async move { publisher.run(stop).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!publisher.is_ready());
    running.stop().await;
}

#[tokio::test]
async fn event_that_cannot_be_decoded_is_skipped() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let events = rig.event_publisher(&publisher);
    let (delivery, node) = rig.node("a").await;
    let exchange = rig.broker.events_exchange();
    // `belfry.passed` is the second routing key of forwarded events.
    for key in ["notification.created", "notification.exploded", "belfry.passed"] {
        let body = json!({ "pattern": key, "data": {} }).to_string();
        rig.amqp.publish(&exchange, key, body, BasicProperties::default()).await;
    }
    events.publish(&[entry("ada", 1)]).await;
    until_true("the next event is delivered", async || delivery.delivered().len() == 1).await;
    node.stop().await;
    assert_eq!(rig.amqp.count(&rig.broker.node_queue("a")).await, Some(0));
    publisher_task.stop().await;
}

#[tokio::test]
async fn event_of_another_store_is_not_delivered() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let (own, other) = (rig.event_publisher(&publisher), rig.event_publisher_of(&publisher, "e2"));
    let (delivery, node) = rig.node("a").await;
    own.publish(&[entry("ada", 1)]).await;
    other.publish(&[entry("ada", 2), entry("bob", 1)]).await;
    // Earlier versions do not name the event's store. The node delivers such an event.
    let body = entry("ada", 2).body.to_string();
    let exchange = rig.broker.events_exchange();
    rig.amqp.publish(&exchange, "notification.created", body, BasicProperties::default()).await;
    own.publish(&[entry("ada", 3)]).await;
    until_true("its own events are delivered", async || revisions(&delivery).contains(&3)).await;
    assert_eq!(revisions(&delivery), [1, 2, 3]);
    assert!(delivery.delivered().iter().all(|(room, _)| room.user() == &user("ada")));
    node.stop().await;
    assert_eq!(rig.amqp.count(&rig.broker.node_queue("a")).await, Some(0));
    publisher_task.stop().await;
}

#[tokio::test]
async fn node_that_restarts_misses_no_event() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let events = rig.event_publisher(&publisher);
    let (_, node) = rig.node("a").await;
    node.stop().await;
    events.publish(&[entry("ada", 1)]).await;

    let delivery = Arc::new(RecordingDelivery::default());
    let node = rig.node_queue_for("a", delivery.clone());
    let mut state = node.state();
    assert_eq!(*state.borrow(), NodeQueueState::Detached { since: None });
    let running = Running::start(|stop| async move { node.run(stop).await });
    let attached = NodeQueueState::Attached { since: at(0), missed: false };
    timeout(PATIENCE, state.wait_for(|now| *now == attached)).await.unwrap().unwrap();
    until_true("the event is delivered", async || revisions(&delivery) == [1]).await;
    running.stop().await;
    assert_eq!(*state.borrow(), NodeQueueState::Detached { since: Some(at(0)) });
    publisher_task.stop().await;
}

#[tokio::test]
async fn second_node_of_the_same_name_attaches_after_the_first_has_stopped() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let events = rig.event_publisher(&publisher);
    let (delivery, first) = rig.node("a").await;
    let duplicate = rig.node_queue("a");
    let mut state = duplicate.state();
    let second = Running::start(|stop| async move { duplicate.run(stop).await });
    for number in 1..=100 {
        events.publish(&[entry("ada", number)]).await;
    }
    until_true("the first node has all events", async || delivery.delivered().len() == 100).await;
    assert_eq!(*state.borrow(), NodeQueueState::Detached { since: None });
    first.stop().await;
    let attached = |now: &_| matches!(now, NodeQueueState::Attached { missed: false, .. });
    timeout(PATIENCE, state.wait_for(attached)).await.expect("the second node attaches").unwrap();
    second.stop().await;
    publisher_task.stop().await;
}
