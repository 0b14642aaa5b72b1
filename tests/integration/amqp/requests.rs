//! Requests of NestJS services (`ClientProxy.send`) on the ingest queue, and their responses.

use belfry_tests::amqp::Message;
use lapin::BasicProperties;
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::rig::{Rig, Store};

/// A service that waits for responses in its own queue.
struct Service<'a> {
    rig: &'a Rig,
    replies: String,
}

impl<'a> Service<'a> {
    async fn new(rig: &'a Rig) -> Self {
        let replies = rig.broker.name("replies");
        rig.broker.will_delete_queue(&replies);
        rig.amqp.declare_queue(&replies, FieldTable::default()).await;
        Self { rig, replies }
    }

    /// Sends a request and returns the `response` or, if that is no object, the `err` of the reply.
    async fn send(&self, pattern: Value, data: Value) -> Value {
        let queue = self.rig.broker.ingest_queue();
        let properties = BasicProperties::default()
            .with_reply_to(self.replies.as_str().into())
            .with_correlation_id("4f".into());
        let body = json!({ "pattern": pattern, "data": data, "id": "4f" }).to_string();
        self.rig.amqp.publish("", &queue, body, properties).await;
        let reply: Message = self.rig.amqp.next(&self.replies).await;
        assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), "4f");
        let mut reply = reply.json();
        assert_eq!((&reply["id"], &reply["isDisposed"]), (&json!("4f"), &json!(true)), "{reply}");
        reply["response"]
            .take()
            .as_object()
            .map_or_else(|| reply["err"].take(), |response| response.clone().into())
    }
}

#[tokio::test]
async fn request_gets_a_response_in_the_form_of_nestjs() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest_with(&publisher, store.handler(), |_, settings| settings.reads = true);
    rig.wait_for_ingest().await;
    let service = Service::new(&rig).await;

    let draft = json!({ "userId": "ada", "id": "n1", "title": "Hi" });
    let created = service.send("notification.create".into(), draft.clone()).await;
    assert_eq!((&created["id"], &created["isRead"]), (&json!("n1"), &json!(false)), "{created}");
    assert_eq!(service.send(json!({ "cmd": "create_notification" }), draft).await, created);
    let ada = json!({ "userId": "ada" });
    let count = service.send("notification.unread_count".into(), ada.clone()).await;
    assert_eq!(count, json!({ "count": 1 }));
    let page = service.send("notification.list".into(), ada.clone()).await;
    assert_eq!(page["items"][0]["id"], "n1", "{page}");
    let read =
        service.send("notification.mark_read".into(), json!({ "userId": "ada", "id": "n1" }));
    assert_eq!(read.await, json!({ "unreadCount": 0 }));
    assert_eq!(service.send("mark_all_as_read".into(), ada).await, json!({ "unreadCount": 0 }));
    let deleted =
        service.send("notification.delete".into(), json!({ "userId": "ada", "id": "n1" }));
    assert_eq!(deleted.await, json!({ "unreadCount": 0 }));

    let unknown = service.send("orders.list".into(), json!({})).await;
    assert_eq!(unknown, "There is no matching message handler defined in the remote service.");
    let invalid = service.send("notification.create".into(), json!({ "userId": "ada" })).await;
    assert_eq!(invalid["message"], "title: is missing, as are message and type");
    let unknown_id = json!({ "userId": "ada", "id": "never" });
    let failed = service.send("notification.mark_read".into(), unknown_id).await;
    assert_eq!(failed["message"], "unknown notification ids: never");
    let second_page = json!({ "userId": "ada", "page": 2 });
    let failed = service.send("notification.list".into(), second_page).await;
    assert_eq!(failed["message"], "page: is not supported beyond the first page");
    rig.stop_all(ingest, publisher_task).await;
    for queue in [rig.broker.ingest_queue(), rig.broker.dead_queue()] {
        assert_eq!(rig.amqp.count(&queue).await, Some(0), "{queue}");
    }
}

#[tokio::test]
async fn request_to_read_is_refused_by_default() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let service = Service::new(&rig).await;
    for pattern in ["notification.list", "notification.unread_count"] {
        let refused = service.send(pattern.into(), json!({ "userId": "ada" })).await;
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("`amqp.ingest.reads` is off"), "{message}");
    }
    rig.stop_all(ingest, publisher_task).await;
}
