use std::sync::Arc;

use belfry_adapters::inbound::amqp::{ForwardHere, ForwardToNodes};
use belfry_application::push::{ForwardedPush, Push, PushBatch};
use belfry_application::testing::{RecordingDelivery, user};
use belfry_application::use_cases::ForwardEvent;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;

use super::rig::{Rig, Running, revoke_tokens};

const CREATED: &str = r#"{"pattern":"notification.created","data":{"userId":"ada",
    "notification":{"id":1.50, "a":"\u00e4" },"unreadCount":7}}"#;
const READ: &str = r#"{"pattern":"notification.marked_read","data":{"userId":"ada","all":true}}"#;

fn expected() -> [PushBatch; 2] {
    let new = ForwardedPush::New(r#"{"id":1.50, "a":"\u00e4" }"#.into());
    let read = ForwardedPush::MarkedRead(r#"{"userId":"ada","all":true}"#.into());
    let forwarded =
        |pushes: Vec<_>| PushBatch::forwarded(pushes.into_iter().map(Push::Forwarded).collect());
    [forwarded(vec![new, ForwardedPush::UnreadCount("7".into())]), forwarded(vec![read])]
}

async fn receives_both(delivery: &RecordingDelivery) {
    until_true("both are delivered", async || delivery.delivered().len() == 2).await;
    let (rooms, batches): (Vec<_>, Vec<_>) = delivery.delivered().into_iter().unzip();
    assert_eq!(batches, expected());
    assert!(rooms.iter().all(|room| room.user() == &user("ada")));
}

async fn send_both(rig: &Rig) {
    rig.ingest_is_declared().await;
    let queue = rig.broker.ingest_queue();
    rig.amqp.publish("", &queue, CREATED, BasicProperties::default()).await;
    rig.amqp.publish(&queue, "notification.marked_read", READ, BasicProperties::default()).await;
}

#[tokio::test]
async fn every_node_delivers_each_forwarded_event_once_and_unchanged() {
    let rig = Rig::new().await;
    let (publisher, connected) = rig.publisher().await;
    let ((one, first), (other, second)) = tokio::join!(rig.node("a"), rig.node("b"));
    let forwarding = || {
        rig.ingest(&publisher, ForwardToNodes::new(&publisher, &rig.topology("a"), revoke_tokens()))
    };
    let both: [Running; 2] = [forwarding(), forwarding()];
    send_both(&rig).await;
    // The broker decides which ingest consumes which message, so their order is not fixed.
    for delivery in [&one, &other] {
        until_true("both are delivered", async || delivery.delivered().len() == 2).await;
        let batches: Vec<_> = delivery.delivered().into_iter().map(|(_, batch)| batch).collect();
        assert!(expected().iter().all(|one| batches.contains(one)), "{batches:?}");
    }
    for running in both.into_iter().chain([first, second]) {
        running.stop().await;
    }
    assert_eq!(rig.amqp.count(&rig.broker.ingest_queue()).await, Some(0));
    connected.stop().await;
}

#[tokio::test]
async fn single_node_forwards_directly_to_its_devices() {
    let rig = Rig::new().await;
    let (publisher, connected) = rig.publisher().await;
    let delivery = Arc::new(RecordingDelivery::default());
    let ingest = rig
        .ingest(&publisher, ForwardHere::new(ForwardEvent::new(delivery.clone()), revoke_tokens()));
    send_both(&rig).await;
    receives_both(&delivery).await;
    rig.amqp.publish("", &rig.broker.ingest_queue(), "{}", BasicProperties::default()).await;
    let dead = rig.amqp.next(&rig.broker.dead_queue()).await;
    assert_eq!(dead.header("x-belfry-reason").unwrap(), "unknown_pattern");
    rig.stop_all(ingest, connected).await;
}
