//! Forward mode: events from the ingest queue go to devices and to the events exchange, and are not stored.

use std::sync::Arc;

use belfry_adapters::inbound::amqp::{ForwardHere, ForwardToNodes};
use belfry_application::push::{ForwardedPush, Push, PushBatch};
use belfry_application::testing::{ManualClock, RecordingDelivery, user};
use belfry_application::use_cases::ForwardEvent;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use serde_json::json;

use super::rig::{Rig, Running, revoke_tokens};

const CREATED: &str = r#"{"pattern":"notification.created","data":{"userId":"ada",
    "notification":{"id":1.50, "a":"\u00e4" },"unreadCount":7}}"#;
const READ: &str = r#"{"pattern":"notification.marked_read","data":{"userId":"ada","all":true}}"#;

/// The pushes for [`CREATED`] and [`READ`]: the JSON text of each value is unchanged.
fn expected() -> [PushBatch; 2] {
    let new = ForwardedPush::New(r#"{"id":1.50, "a":"\u00e4" }"#.into());
    let read = ForwardedPush::MarkedRead(r#"{"userId":"ada","all":true}"#.into());
    let forwarded =
        |pushes: Vec<_>| PushBatch::forwarded(pushes.into_iter().map(Push::Forwarded).collect());
    [forwarded(vec![new, ForwardedPush::UnreadCount("7".into())]), forwarded(vec![read])]
}

async fn assert_receives_both(delivery: &RecordingDelivery) {
    until_true("both are delivered", async || delivery.delivered().len() == 2).await;
    let (rooms, batches): (Vec<_>, Vec<_>) = delivery.delivered().into_iter().unzip();
    assert_eq!(batches, expected());
    assert!(rooms.iter().all(|room| room.user() == &user("ada")));
}

async fn send_both(rig: &Rig) {
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();
    rig.amqp.publish("", &queue, CREATED, BasicProperties::default()).await;
    rig.amqp.publish(&queue, "notification.marked_read", READ, BasicProperties::default()).await;
}

#[tokio::test]
async fn every_node_delivers_each_forwarded_event_once_and_unchanged() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let ((delivery_a, node_a), (delivery_b, node_b)) = tokio::join!(rig.node("a"), rig.node("b"));
    let forwarding = || {
        rig.ingest(&publisher, ForwardToNodes::new(&publisher, &rig.topology("a"), revoke_tokens()))
    };
    let ingests: [Running; 2] = [forwarding(), forwarding()];
    let tap = rig.amqp.tap(&rig.broker.events_exchange(), "notification.*").await;
    send_both(&rig).await;
    // The broker distributes the messages to two consumers, so their order is not fixed.
    for delivery in [&delivery_a, &delivery_b] {
        until_true("both are delivered", async || delivery.delivered().len() == 2).await;
        let batches: Vec<_> = delivery.delivered().into_iter().map(|(_, batch)| batch).collect();
        assert!(expected().iter().all(|one| batches.contains(one)), "{batches:?}");
    }
    let mut received = [rig.amqp.next(&tap).await, rig.amqp.next(&tap).await];
    received.sort_by(|one, other| one.routing_key.cmp(&other.routing_key));
    for (message, (name, sent)) in
        received.iter().zip([("notification.created", CREATED), ("notification.marked_read", READ)])
    {
        assert_eq!(message.routing_key, name);
        let sent: serde_json::Value = serde_json::from_str(sent).unwrap();
        assert_eq!(message.json(), sent);
        assert_eq!(message.properties.kind().as_ref().unwrap().as_str(), name);
        assert_eq!(message.header("BCC"), None, "the further routing key is visible");
    }
    assert!(rig.amqp.take(&tap).await.is_none());
    for running in ingests.into_iter().chain([node_a, node_b]) {
        running.stop().await;
    }
    for (delivery, node) in [(&delivery_a, "a"), (&delivery_b, "b")] {
        assert_eq!(delivery.delivered().len(), 2, "an event is delivered again");
        assert_eq!(rig.amqp.count(&rig.broker.node_queue(node)).await, Some(0));
    }
    assert_eq!(rig.amqp.count(&rig.broker.ingest_queue()).await, Some(0));
    publisher_task.stop().await;
}

#[tokio::test]
async fn single_node_forwards_directly_to_its_devices() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let delivery = Arc::new(RecordingDelivery::default());
    let (forward, clock) = (ForwardEvent::new(delivery.clone()), Arc::new(ManualClock::at(0)));
    let ingest = rig.ingest(&publisher, ForwardHere::new(forward, revoke_tokens(), clock));
    send_both(&rig).await;
    assert_receives_both(&delivery).await;
    rig.amqp.publish("", &rig.broker.ingest_queue(), "{}", BasicProperties::default()).await;
    let dead = rig.amqp.next(&rig.broker.dead_queue()).await;
    assert_eq!(dead.header("x-belfry-reason").unwrap(), "unknown_pattern");
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn message_to_several_users_is_one_event_for_other_services() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let (delivery, node) = rig.node("a").await;
    let handler = ForwardToNodes::new(&publisher, &rig.topology("a"), revoke_tokens());
    let ingest = rig.ingest(&publisher, handler);
    let tap = rig.amqp.tap(&rig.broker.events_exchange(), "#").await;
    rig.wait_for_ingest().await;
    let data = json!({ "userIds": ["ada", "bob"], "title": "Hi" });
    rig.send("notification_created", data.clone()).await;
    until_true("it is delivered to both", async || delivery.delivered().len() == 2).await;
    let rooms: Vec<_> =
        delivery.delivered().iter().map(|(room, _)| room.user().to_string()).collect();
    assert_eq!(rooms, ["ada", "bob"]);
    let message = rig.amqp.next(&tap).await;
    assert_eq!(message.routing_key, "notification_created", "the service's pattern is changed");
    let headers = message.properties.headers().as_ref().unwrap();
    assert_eq!(
        headers.inner()["x-belfry-accepted-at"],
        AMQPValue::LongLongInt(0),
        "the rig's clock is at 0"
    );
    assert_eq!(message.json(), json!({ "pattern": "notification_created", "data": data }));
    assert!(rig.amqp.take(&tap).await.is_none());
    node.stop().await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn forwarded_event_that_returns_to_the_ingest_queue_is_not_forwarded_again() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let handler = ForwardToNodes::new(&publisher, &rig.topology("a"), revoke_tokens());
    let events = format!("topic:{}:notification.#", rig.broker.events_exchange());
    let ingest = rig.ingest_with(&publisher, handler, |topology, _| {
        topology.ingest_bindings = vec![events.parse().unwrap()];
    });
    rig.wait_for_ingest().await;
    rig.send("notification.created", json!({ "userId": "ada", "title": "Hi" })).await;
    let dead = rig.amqp.next(&rig.broker.dead_queue()).await;
    assert_eq!(dead.header("x-belfry-reason").as_deref(), Some("rejected"));
    assert!(dead.header("x-belfry-error").unwrap().contains("amqp.events.exchange"), "{dead:?}");
    rig.stop_all(ingest, publisher_task).await;
    let more = rig.amqp.count(&rig.broker.dead_queue()).await;
    assert_eq!(more, Some(0), "more than one dead letter");
}

/// Earlier versions recognise a forwarded event by the routing key `belfry.passed`. Now this is only a second key.
/// So that they skip the event, its header names an epoch that no store has.
#[tokio::test]
async fn forwarded_event_looks_to_earlier_versions_like_one_of_another_store() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let (_, node) = rig.node("a").await;
    let handler = ForwardToNodes::new(&publisher, &rig.topology("a"), revoke_tokens());
    let ingest = rig.ingest(&publisher, handler);
    let tap = rig.amqp.tap(&rig.broker.events_exchange(), "belfry.passed").await;
    rig.wait_for_ingest().await;
    rig.send("notification.created", json!({ "userId": "ada", "title": "Hi" })).await;
    let message = rig.amqp.next(&tap).await;
    assert_eq!(message.routing_key, "notification.created");
    assert_eq!(message.header("x-belfry-epoch").as_deref(), Some("forwarded"));
    node.stop().await;
    rig.stop_all(ingest, publisher_task).await;
}
