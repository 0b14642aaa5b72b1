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
    let passed =
        |pushes: Vec<_>| PushBatch::forwarded(pushes.into_iter().map(Push::Forwarded).collect());
    [passed(vec![new, ForwardedPush::UnreadCount("7".into())]), passed(vec![read])]
}

async fn hears_both(delivery: &RecordingDelivery) {
    until_true("both are told", async || delivery.delivered().len() == 2).await;
    let (rooms, told): (Vec<_>, Vec<_>) = delivery.delivered().into_iter().unzip();
    assert_eq!(told, expected());
    assert!(rooms.iter().all(|room| room.user() == &user("ada")));
}

async fn send_both(rig: &Rig) {
    rig.ingest_is_declared().await;
    let queue = rig.broker.ingest_queue();
    rig.amqp.publish("", &queue, CREATED, BasicProperties::default()).await;
    rig.amqp.publish(&queue, "notification.marked_read", READ, BasicProperties::default()).await;
}

#[tokio::test]
async fn every_node_hears_what_any_of_them_consumed_once_and_unchanged() {
    let rig = Rig::new().await;
    let (publisher, connected) = rig.publisher().await;
    let ((one, first), (other, second)) = tokio::join!(rig.node("a"), rig.node("b"));
    let forwarding = || {
        rig.ingest(&publisher, ForwardToNodes::new(&publisher, &rig.topology("a"), revoke_tokens()))
    };
    let both: [Running; 2] = [forwarding(), forwarding()];
    send_both(&rig).await;
    // Which of the two consumed which of the messages is left to the broker, and with it their order.
    for delivery in [&one, &other] {
        until_true("both are told", async || delivery.delivered().len() == 2).await;
        let told: Vec<_> = delivery.delivered().into_iter().map(|(_, told)| told).collect();
        assert!(expected().iter().all(|one| told.contains(one)), "{told:?}");
    }
    for running in both.into_iter().chain([first, second]) {
        running.stop().await;
    }
    assert_eq!(rig.amqp.count(&rig.broker.ingest_queue()).await, Some(0));
    connected.stop().await;
}

#[tokio::test]
async fn one_node_tells_its_devices_without_another_way_through_the_broker() {
    let rig = Rig::new().await;
    let (publisher, connected) = rig.publisher().await;
    let delivery = Arc::new(RecordingDelivery::default());
    let ingest = rig
        .ingest(&publisher, ForwardHere::new(ForwardEvent::new(delivery.clone()), revoke_tokens()));
    send_both(&rig).await;
    hears_both(&delivery).await;
    rig.amqp.publish("", &rig.broker.ingest_queue(), "{}", BasicProperties::default()).await;
    let dead = rig.amqp.next(&rig.broker.dead_queue()).await;
    assert_eq!(dead.header("x-belfry-reason").unwrap(), "unknown_pattern");
    rig.ends_with_nothing_left(ingest, connected).await;
}
