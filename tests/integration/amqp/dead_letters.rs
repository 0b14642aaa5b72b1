//! Dead letters are listed, shown, replayed to the ingest queue and purged, by the adapter and by the command
//! `belfry dead-letters`.

use belfry_adapters::inbound::amqp::{
    DeadLetterSelection, DeadLetters, DeadLettersError, FailureReason,
};
use belfry_tests::process::{Belfry, Builder};
use belfry_tests::proxy::Proxy;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use super::rig::{Rig, Store};

impl Rig {
    async fn dead_letters(&self) -> DeadLetters {
        DeadLetters::connect(self.settings(), self.topology("a")).await.unwrap()
    }

    /// Declares the ingest queue and the dead queue, without a consumer.
    async fn declare_ingest_and_dead(&self) {
        for queue in [self.broker.ingest_queue(), self.broker.dead_queue()] {
            self.amqp.declare_queue(&queue, FieldTable::default()).await;
        }
    }

    async fn add_dead(&self, id: &str, reason: &str) {
        let body = json!({ "pattern": "notification.create", "data": { "id": id } }).to_string();
        self.add_dead_with(id, reason, body).await;
    }

    async fn add_dead_with(&self, id: &str, reason: &str, body: impl AsRef<[u8]>) {
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("x-belfry-reason", reason),
            ("x-belfry-exchange", ""),
            ("x-belfry-routing-key", &self.broker.ingest_queue()),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_delivery_mode(2)
            .with_headers(headers);
        self.amqp.publish("", &self.broker.dead_queue(), body, properties).await;
    }

    /// Removes all messages of a queue and returns their ids in order.
    async fn drain(&self, queue: &str) -> Vec<String> {
        let mut ids = vec![];
        while let Some(message) = self.amqp.take(queue).await {
            ids.push(message.properties.message_id().as_ref().unwrap().to_string());
        }
        ids
    }

    fn command(&self, arguments: &[&str]) -> Builder {
        let builder = Belfry::builder().broker(&self.broker).arg("dead-letters");
        arguments.iter().fold(builder, Builder::arg)
    }
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n}")).collect()
}

#[tokio::test]
async fn reading_keeps_all_messages_in_order() {
    let rig = Rig::new().await;
    rig.declare_ingest_and_dead().await;
    for id in ids(10) {
        rig.add_dead(&id, "invalid").await;
    }
    let letters = rig.dead_letters().await;
    let dead_queue = rig.broker.dead_queue();
    for limit in [3, 10, 50] {
        let listed = letters.list(limit).await.unwrap();
        let seen: Vec<_> = listed.iter().map(|it| it.message_id().unwrap().to_owned()).collect();
        assert_eq!(seen, ids(10)[..10.min(limit as usize)]);
        assert_eq!(rig.amqp.count(&dead_queue).await, Some(10));
    }
    let third = letters.show(&DeadLetterSelection::Position(3)).await.unwrap().unwrap();
    assert_eq!((third.message_id(), third.pattern()), (Some("m2"), Some("notification.create")));
    let named =
        letters.show(&DeadLetterSelection::MessageId("m7".to_owned())).await.unwrap().unwrap();
    assert_eq!((named.position(), named.reason()), (8, Some("invalid")));
    assert!(letters.show(&DeadLetterSelection::Position(11)).await.unwrap().is_none());
    assert_eq!(
        letters.count(&DeadLetterSelection::Reason(FailureReason::Invalid)).await.unwrap(),
        10
    );
    assert_eq!(
        letters.count(&DeadLetterSelection::Reason(FailureReason::Rejected)).await.unwrap(),
        0
    );
    letters.close().await;
    assert_eq!(rig.drain(&dead_queue).await, ids(10));
}

#[tokio::test]
async fn rejected_message_is_stored_after_a_replay_once_the_store_accepts_it() {
    let rig = Rig::new().await;
    let (rejecting, accepting) = (Store::new(), Store::new());
    for id in ["direct", "routed"] {
        rejecting.reject(id);
    }
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, rejecting.handler());
    rig.wait_for_ingest().await;
    let (queue, dead_queue) = (rig.broker.ingest_queue(), rig.broker.dead_queue());
    // The queue of another service, bound to the ingest exchange, must not receive the message twice.
    let other_service = rig.amqp.tap(&queue, "#").await;

    let data = |id: &str| json!({ "userId": "ada", "id": id, "title": "Hi" });
    rig.send("notification.create", data("direct")).await;
    // The pattern is only in the routing key. The expiration would remove the dead letter from its queue.
    let expiring = BasicProperties::default().with_expiration("3600000".into());
    rig.amqp.publish(&queue, "notification.create", data("routed").to_string(), expiring).await;
    until_true("both are dead", async || rig.amqp.count(&dead_queue).await == Some(2)).await;
    rig.stop_ingest(ingest).await;
    assert!(rig.amqp.take(&other_service).await.is_some());

    let letters = rig.dead_letters().await;
    assert_eq!(letters.replay(&DeadLetterSelection::All, u32::MAX).await.unwrap(), 2);
    letters.close().await;
    assert_eq!(rig.amqp.count(&dead_queue).await, Some(0));
    let ingest = rig.ingest(&publisher, accepting.handler());
    until_true("both are stored", async || accepting.ids("ada").await == ["direct", "routed"])
        .await;
    rig.stop_ingest(ingest).await;
    assert!(rig.amqp.take(&other_service).await.is_none(), "another service receives a replay");
    publisher_task.stop().await;
}

#[tokio::test]
async fn replay_takes_only_selected_messages_and_keeps_the_others_in_order() {
    let rig = Rig::new().await;
    rig.declare_ingest_and_dead().await;
    for (n, id) in ids(6).iter().enumerate() {
        rig.add_dead(id, if n % 2 == 0 { "rejected" } else { "invalid" }).await;
    }
    let letters = rig.dead_letters().await;
    assert_eq!(
        letters.replay(&DeadLetterSelection::Reason(FailureReason::Rejected), 2).await.unwrap(),
        2
    );
    assert_eq!(
        letters.replay(&DeadLetterSelection::MessageId("m3".to_owned()), u32::MAX).await.unwrap(),
        1
    );
    letters.close().await;
    let first = rig.amqp.next(&rig.broker.ingest_queue()).await;
    let headers = first.properties.headers().as_ref().map(|it| it.inner().len());
    assert_eq!(headers, Some(0), "Belfry's headers are not removed");
    assert_eq!(first.json()["data"]["id"], "m0");
    assert_eq!(rig.drain(&rig.broker.ingest_queue()).await, ["m2", "m3"]);
    assert_eq!(rig.drain(&rig.broker.dead_queue()).await, ["m1", "m4", "m5"]);
}

#[tokio::test]
async fn unroutable_replay_keeps_the_message_in_the_dead_queue() {
    let rig = Rig::new().await;
    rig.amqp.declare_queue(&rig.broker.dead_queue(), FieldTable::default()).await;
    for id in ids(3) {
        rig.add_dead(&id, "rejected").await;
    }
    let letters = rig.dead_letters().await;
    let result = letters.replay(&DeadLetterSelection::All, u32::MAX).await;
    assert!(matches!(result, Err(DeadLettersError::NotReplayed { replayed: 0, .. })), "{result:?}");
    letters.close().await;
    assert_eq!(rig.drain(&rig.broker.dead_queue()).await, ids(3));
}

#[tokio::test]
async fn connection_lost_during_a_replay_loses_no_message() {
    let rig = Rig::new().await;
    rig.declare_ingest_and_dead().await;
    for id in ids(300) {
        rig.add_dead(&id, "rejected").await;
    }
    let proxy = Proxy::to(rig.broker.url()).await;
    let rig = rig.via(proxy.url());
    let (queue, dead_queue) = (rig.broker.ingest_queue(), rig.broker.dead_queue());
    let letters = rig.dead_letters().await;
    let replaying =
        tokio::spawn(async move { letters.replay(&DeadLetterSelection::All, u32::MAX).await });
    until_true("some were sent", async || rig.amqp.count(&queue).await > Some(20)).await;
    proxy.close();
    let result = replaying.await.unwrap();
    let Err(DeadLettersError::NotReplayed { replayed, .. }) = result else { panic!("{result:?}") };
    assert!((20..300).contains(&replayed), "{replayed}");

    // The broker requeues unacknowledged messages when it notices that their connection is lost.
    let total =
        async || rig.amqp.count(&queue).await.unwrap() + rig.amqp.count(&dead_queue).await.unwrap();
    until_true("all messages are in the queues again", async || total().await >= 300).await;
    let mut all = rig.drain(&queue).await;
    assert!(all.len() >= replayed as usize);
    all.extend(rig.drain(&dead_queue).await);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 300);
}

#[tokio::test]
async fn purge_deletes_messages_by_reason() {
    let rig = Rig::new().await;
    rig.declare_ingest_and_dead().await;
    for (id, reason) in [("a", "invalid"), ("b", "rejected"), ("c", "invalid"), ("d", "gave_up")] {
        rig.add_dead(id, reason).await;
    }
    let letters = rig.dead_letters().await;
    assert_eq!(
        letters.purge(&DeadLetterSelection::Reason(FailureReason::Invalid)).await.unwrap(),
        2
    );
    assert_eq!(letters.count(&DeadLetterSelection::All).await.unwrap(), 2);
    assert_eq!(letters.list(9).await.unwrap()[1].message_id(), Some("d"));
    assert_eq!(letters.purge(&DeadLetterSelection::All).await.unwrap(), 2);
    assert_eq!(rig.amqp.count(&rig.broker.dead_queue()).await, Some(0));
    letters.close().await;
}

#[tokio::test]
async fn purge_skips_messages_held_by_another_consumer() {
    let rig = Rig::new().await;
    rig.declare_ingest_and_dead().await;
    for id in ids(2) {
        rig.add_dead(&id, "invalid").await;
    }
    let dead_queue = rig.broker.dead_queue();
    let get = BasicGetOptions::default();
    let held = rig.amqp.channel().basic_get(dead_queue.as_str().into(), get).await.unwrap();
    let letters = rig.dead_letters().await;
    assert_eq!(letters.purge(&DeadLetterSelection::All).await.unwrap(), 1);
    letters.close().await;
    let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    held.unwrap().delivery.nack(requeue).await.unwrap();
    assert_eq!(
        rig.amqp.next(&dead_queue).await.properties.message_id().as_ref().unwrap().as_str(),
        "m0"
    );
}

#[tokio::test]
async fn command_line_lists_shows_replays_and_purges() {
    let rig = Rig::new().await;
    let missing = rig.command(&["list"]).finish().await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.err.contains("does not exist yet"), "{}", missing.err);

    rig.declare_ingest_and_dead().await;
    rig.add_dead("m1", "invalid").await;
    rig.add_dead_with("m2", "unreadable", [0xff, 0x00]).await;
    let listed = rig.command(&["list"]).finish().await;
    assert!(listed.status.success(), "{}", listed.err);
    let lines: Vec<_> = listed.out.lines().collect();
    assert_eq!(lines.len(), 3, "not a heading and two dead letters: {lines:?}");
    assert!(lines[1].starts_with("1  invalid") && lines[1].contains("m1"), "{lines:?}");
    let as_json = rig.command(&["list", "--limit", "1", "--json"]).finish().await;
    let line: Value = serde_json::from_str(&as_json.out).unwrap();
    assert_eq!(
        (&line["messageId"], &line["pattern"]),
        (&json!("m1"), &json!("notification.create"))
    );

    let shown = rig.command(&["show", "m2"]).finish().await;
    assert!(shown.out.contains("x-belfry-reason: unreadable"), "{}", shown.out);
    assert!(shown.out.ends_with("\n\nff00"), "{}", shown.out);
    assert!(rig.command(&["show", "1"]).finish().await.out.contains(r#""id":"m1""#));
    assert_eq!(rig.command(&["show", "3"]).finish().await.status.code(), Some(1));

    let without_selection = rig.command(&["replay"]).finish().await;
    assert_eq!(without_selection.status.code(), Some(2));
    let replayed = rig.command(&["replay", "--message-id", "m1"]).finish().await;
    assert_eq!(replayed.out, "1 message sent to the ingest queue again");
    let unconfirmed = rig.command(&["purge"]).finish().await;
    assert_eq!(unconfirmed.status.code(), Some(1));
    assert_eq!(unconfirmed.err, "belfry: 1 message would be deleted; pass --yes to delete");
    let purged = rig.command(&["purge", "--yes", "--reason", "unreadable"]).finish().await;
    assert_eq!(purged.out, "1 message deleted");
    assert_eq!(rig.amqp.count(&rig.broker.dead_queue()).await, Some(0));
    assert_eq!(rig.amqp.count(&rig.broker.ingest_queue()).await, Some(1));
}

#[tokio::test]
async fn command_line_without_a_broker_prints_an_error() {
    let list = || Belfry::builder().arg("dead-letters").arg("list");
    let unset = list().finish().await;
    assert_eq!(unset.status.code(), Some(1));
    assert!(unset.err.contains("set amqp.url"), "{}", unset.err);
    // Nothing listens on port 1.
    let down = list().amqp("amqp://guest:sesame@127.0.0.1:1/%2f").finish().await;
    assert_eq!(down.status.code(), Some(1));
    assert!(down.err.starts_with("belfry: cannot connect to RabbitMQ at amqp://"), "{}", down.err);
    assert!(!down.err.contains("sesame"), "{}", down.err);
}
