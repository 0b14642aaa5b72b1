//! In forward mode, requests of devices are published for the service that keeps the inboxes (the inbox owner).

use belfry_adapters::amqp::Publisher;
use belfry_adapters::outbound::amqp::AmqpInboxOwner;
use belfry_application::ports::{InboxOwner, PortError, RequestedChange};
use belfry_application::testing::{id, user};
use futures_util::future::join_all;
use serde_json::json;

use super::rig::{Rig, Running};

async fn owner(rig: &Rig) -> (AmqpInboxOwner, Running) {
    let (publisher, publisher_task) = rig.publisher().await;
    (AmqpInboxOwner::new(&publisher, &rig.topology("a")).unwrap(), publisher_task)
}

#[tokio::test]
async fn confirmed_request_is_in_the_bound_queue_and_an_unroutable_one_is_unavailable() {
    let rig = Rig::new().await;
    let (owner, publisher_task) = owner(&rig).await;
    let (ada, change) = (user("ada"), RequestedChange::MarkRead(vec![id("n1")]));
    let unroutable = owner.request(&ada, &change).await.unwrap_err();
    assert!(matches!(unroutable, PortError::Unavailable(_)), "{unroutable}");
    assert!(unroutable.to_string().contains("not routed to any queue"), "{unroutable}");

    // The first request has declared the exchange, so that a queue can be bound to it.
    let queue = rig.amqp.tap(&rig.broker.devices_exchange(), "device.*").await;
    owner.request(&ada, &change).await.unwrap();
    let message = rig.amqp.next(&queue).await;
    assert_eq!(message.routing_key, "device.mark_read");
    let data = json!({ "userId": "ada", "ids": ["n1"], "notificationId": "n1" });
    assert_eq!(message.json(), json!({ "pattern": "device.mark_read", "data": data }));
    let properties = &message.properties;
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "device.mark_read");
    assert!(rig.amqp.take(&queue).await.is_none(), "the unroutable request is repeated");
    publisher_task.stop().await;
}

#[tokio::test]
async fn concurrent_requests_keep_the_order_of_each_user() {
    const REQUESTS: usize = 50;
    let rig = Rig::new().await;
    let (owner, publisher_task) = owner(&rig).await;
    let names: Vec<_> = (0..4).map(|n| format!("user-{n}")).collect();
    // This request is unroutable, but declares the exchange.
    owner.request(&user("first"), &RequestedChange::MarkAllRead).await.unwrap_err();
    let queue = rig.amqp.tap(&rig.broker.devices_exchange(), "#").await;
    let requests = (0..REQUESTS).flat_map(|n| names.iter().map(move |name| (n, name)));
    let results = join_all(requests.map(async |(n, name)| {
        let change = RequestedChange::Delete(id(&format!("n{n}")));
        owner.request(&user(name), &change).await
    }));
    assert!(results.await.iter().all(Result::is_ok));
    let mut received = Vec::new();
    while let Some(message) = rig.amqp.take(&queue).await {
        received.push(message.json()["data"].clone());
    }
    assert_eq!(received.len(), REQUESTS * names.len());
    let expected: Vec<_> = (0..REQUESTS).map(|n| json!(format!("n{n}"))).collect();
    for name in &names {
        let of_user = received.iter().filter(|data| data["userId"] == **name);
        let ids: Vec<_> = of_user.map(|data| data["notificationId"].clone()).collect();
        assert_eq!(ids, expected, "{name}");
    }
    publisher_task.stop().await;
}

#[tokio::test]
async fn request_without_a_broker_is_unavailable_at_once() {
    // Nothing listens on port 1.
    let rig = Rig::new().await.via("amqp://guest:guest@127.0.0.1:1/%2f");
    let publisher = Publisher::new(rig.settings(), rig.topology("a"));
    let owner = AmqpInboxOwner::new(&publisher, &rig.topology("a")).unwrap();
    let result = owner.request(&user("ada"), &RequestedChange::MarkAllRead).await;
    assert!(matches!(result, Err(PortError::Unavailable(_))), "{result:?}");
}
