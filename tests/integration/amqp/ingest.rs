//! Messages of the ingest queue are stored, retried or dead-lettered.

use std::time::Duration;

use belfry_application::ports::InboxRepository;
use belfry_application::testing::user;
use belfry_tests::raw_amqp as raw;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use super::rig::{Rig, Store};

fn properties() -> BasicProperties {
    BasicProperties::default()
}

fn headers(pairs: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

#[tokio::test]
async fn every_message_form_is_stored() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();

    rig.send("notification.create", json!({ "userId": "ada", "id": "nest", "title": "Hi" })).await;
    let wrapped = json!({ "userId": "ada", "notification": { "id": "wrapped", "title": "Hi" } });
    rig.send("notification.created", wrapped).await;
    let bare = |id: &str| json!({ "userId": "ada", "id": id, "title": "Hi" }).to_string();
    let typed = properties().with_type("notification.create".into());
    rig.amqp.publish("", &queue, bare("typed"), typed).await;
    // NestJS with `wildcards`, like each service that publishes to the exchange, sends the pattern as routing key.
    rig.amqp.publish(&queue, "notification.created", bare("routed"), properties()).await;
    let event = json!({
        "specversion": "1.0", "type": "org.example.notification.created", "source": "/shop",
        "id": "1", "data": { "userId": "ada", "id": "structured", "title": "Hi" },
    });
    rig.amqp.publish("", &queue, event.to_string(), properties()).await;
    let attributes = [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:type", "notification.created"),
        ("cloudEvents:id", "2"),
    ];
    let binary = properties().with_headers(headers(&attributes));
    rig.amqp.publish("", &queue, bare("binary"), binary).await;
    rig.send("notification.mark_read", json!({ "userId": "ada", "ids": ["nest", "typed"] })).await;

    until_true("the last message took effect", async || {
        store.inner.state(&user("ada")).await.unwrap().revision.get() == 7
    })
    .await;
    rig.stop_all(ingest, publisher_task).await;
    let expected = ["nest", "wrapped", "typed", "routed", "structured", "binary"];
    assert_eq!(store.ids("ada").await, expected);
    let state = store.inner.state(&user("ada")).await.unwrap();
    assert_eq!((state.unread.get(), state.revision.get()), (4, 7));
}

#[tokio::test]
async fn repeated_message_is_stored_once() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();

    for _ in 0..3 {
        rig.send("notification.create", json!({ "userId": "ada", "id": "n1", "title": "Hi" }))
            .await;
        let without_id =
            json!({ "pattern": "notification.create", "data": { "userId": "bob", "title": "Hi" } });
        let with_message_id = properties().with_message_id("m1".into());
        rig.amqp.publish("", &queue, without_id.to_string(), with_message_id).await;
    }
    rig.send("notification.create", json!({ "userId": "eve", "id": "n1", "title": "Hi" })).await;
    until_true("the last one is stored", async || store.ids("eve").await.len() == 1).await;
    rig.stop_all(ingest, publisher_task).await;
    assert_eq!(store.ids("ada").await.len(), 1);
    assert_eq!(store.ids("bob").await.len(), 1);
}

#[tokio::test]
async fn stored_but_unacknowledged_message_is_stored_once() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    // One message fails, so the others are stored while the batch is not fully acknowledged.
    store.fail_for(&["n3"]);
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    for n in 0..6 {
        let data = json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
        rig.send("notification.create", data).await;
    }
    until_true("the others are stored", async || store.ids("ada").await.len() == 5).await;
    ingest.stop().await;
    store.fail_for(&[]);

    let ingest = rig.ingest(&publisher, store.handler());
    until_true("all are stored", async || store.ids("ada").await.len() == 6).await;
    rig.stop_all(ingest, publisher_task).await;
    assert_eq!(store.ids("ada").await.len(), 6);
}

#[tokio::test]
async fn notification_that_expired_in_the_queue_is_dropped() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    // The store's clock is at one second.
    for (id, expires_at) in [("past", "1970-01-01T00:00:01Z"), ("future", "1970-01-01T00:00:02Z")] {
        let mut data = json!({ "userId": "ada", "id": id, "title": "Hi", "expiresAt": expires_at });
        rig.send("notification.create", data.clone()).await;
        data["createdAt"] = "1970-01-01T00:00:00.5Z".into();
        data["id"] = format!("{id}-with-creation-time").into();
        rig.send("notification.create", data).await;
    }
    rig.send("notification.create", json!({ "userId": "ada", "id": "last", "title": "Hi" })).await;
    until_true("the last one is stored", async || {
        store.ids("ada").await.contains(&"last".to_owned())
    })
    .await;
    rig.stop_all(ingest, publisher_task).await;
    assert_eq!(store.ids("ada").await, ["future", "future-with-creation-time", "last"]);
    assert_eq!(rig.amqp.count(&rig.broker.dead_queue()).await, Some(0));
}

#[tokio::test]
async fn invalid_messages_go_to_the_dead_queue_and_others_are_stored() {
    let rig = Rig::new().await;
    let store = Store::new();
    store.reject("refused");
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();

    let good = |n: u32| json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
    rig.send("notification.create", good(1)).await;
    let mut odd_headers = headers(&[("x-app", "svc")]);
    let also_to = vec![AMQPValue::LongString("notification.create".into())];
    odd_headers.insert("CC".into(), AMQPValue::FieldArray(also_to.into()));
    let odd = properties()
        .with_headers(odd_headers)
        .with_message_id("m1".into())
        .with_expiration("3600000".into())
        .with_delivery_mode(1);
    rig.amqp.publish(&queue, "order.placed", "{}", odd).await;
    rig.send("notification.create", good(2)).await;
    rig.amqp.publish("", &queue, [0xff, 0xfe], properties()).await;
    rig.amqp.publish("", &queue, "", properties()).await;
    rig.send("notification.create", json!({ "userId": "ada" })).await;
    rig.send("notification.create", json!({ "userId": "ada", "id": "refused", "title": "Hi" }))
        .await;
    rig.send("notification.create", good(3)).await;

    let dead_queue = rig.broker.dead_queue();
    until_true("five messages are dead", async || rig.amqp.count(&dead_queue).await == Some(5))
        .await;
    until_true("the last one is stored", async || store.ids("ada").await.len() == 3).await;
    rig.stop_all(ingest, publisher_task).await;
    assert_eq!(store.ids("ada").await, ["n1", "n2", "n3"]);
    let mut seen = vec![];
    while let Some(dead) = rig.amqp.take(&rig.broker.dead_queue()).await {
        let header = |name: &str| dead.header(name).unwrap_or_else(|| panic!("no header {name}"));
        assert_eq!(header("x-belfry-attempts"), "1");
        assert_eq!(header("x-belfry-first-failed-at"), "1970-01-01T00:00:00.000Z");
        assert_eq!(header("x-belfry-last-failed-at"), "1970-01-01T00:00:00.000Z");
        assert_eq!(*dead.properties.delivery_mode(), Some(2));
        if header("x-belfry-reason") == "unknown_pattern" {
            assert_eq!(header("x-app"), "svc");
            assert_eq!(header("x-belfry-exchange"), queue);
            assert_eq!(header("x-belfry-routing-key"), "order.placed");
            assert_eq!(header("x-belfry-expiration"), "3600000");
            assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "m1");
            assert_eq!(dead.body, b"{}");
        } else {
            assert_eq!(header("x-belfry-exchange"), "");
            assert_eq!(header("x-belfry-routing-key"), queue);
        }
        seen.push((header("x-belfry-reason"), header("x-belfry-error")));
    }
    seen.sort();
    let expected = [
        ("invalid", "title: is missing, as are message and type"),
        ("rejected", "rejected: a value that no column takes"),
        ("unknown_pattern", "unknown pattern \"order.placed\""),
        ("unreadable", "the body is not UTF-8"),
        ("unreadable", "the body is not a JSON object: it is empty"),
    ];
    assert_eq!(seen, expected.map(|(reason, error)| (reason.to_owned(), error.to_owned())));
}

#[tokio::test]
async fn message_that_fails_alone_is_retried_and_then_dead_lettered() {
    let rig = Rig::new().await;
    let store = Store::new();
    store.fail_for(&["never", "later"]);
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let queue = rig.broker.ingest_queue();

    let bare = |id: &str| json!({ "userId": "ada", "id": id, "title": "Hi" }).to_string();
    for id in ["never", "later"] {
        // The pattern is in the routing key, which must survive the retry queue.
        rig.amqp.publish(&queue, "notification.create", bare(id), properties()).await;
    }
    // Other messages succeed meanwhile.
    for n in 0.. {
        let data = json!({ "userId": "bob", "id": format!("n{n}"), "title": "Hi" });
        rig.send("notification.create", data).await;
        until_true("another message is stored", async || store.ids("bob").await.len() == n + 1)
            .await;
        if n == 3 {
            store.fail_for(&["never"]);
        }
        if rig.amqp.count(&rig.broker.dead_queue()).await > Some(0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let dead = rig.amqp.next(&rig.broker.dead_queue()).await;
    assert_eq!(dead.json()["id"], "never");
    assert_eq!(dead.header("x-belfry-reason").unwrap(), "gave_up");
    assert_eq!(dead.header("x-belfry-attempts").unwrap(), "3");
    assert_eq!(dead.header("x-belfry-routing-key").unwrap(), "notification.create");
    assert_eq!(dead.header("x-belfry-exchange").unwrap(), queue);
    until_true("the other message is stored", async || store.ids("ada").await == ["later"]).await;
    rig.stop_all(ingest, publisher_task).await;
    for retry in ["retry.100ms", "retry.200ms"] {
        assert_eq!(rig.amqp.count(&format!("{queue}.{retry}")).await, Some(0), "{retry}");
    }
}

#[tokio::test]
async fn mark_read_before_its_notification_takes_effect_later() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;

    rig.send("notification.create", json!({ "userId": "bob", "id": "n1", "title": "Hi" })).await;
    rig.send("notification.mark_read", json!({ "userId": "ada", "id": "n1" })).await;
    rig.send("notification.mark_read", json!({ "userId": "bob", "ids": ["n2", "n1"] })).await;
    until_true("existing notifications are marked at once", async || {
        store.inbox("bob").await.iter().any(belfry_domain::Notification::is_read)
    })
    .await;
    for name in ["ada", "bob"] {
        for id in ["n1", "n2"] {
            let data = json!({ "userId": name, "id": id, "title": "Hi" });
            rig.send("notification.create", data).await;
        }
    }
    until_true("all read notifications are marked", async || {
        let unread = async |name| store.inner.state(&user(name)).await.unwrap().unread.get();
        let stored = store.ids("ada").await.len() + store.ids("bob").await.len();
        stored == 4 && unread("ada").await == 1 && unread("bob").await == 0
    })
    .await;
    rig.stop_all(ingest, publisher_task).await;
    assert_eq!(rig.amqp.count(&rig.broker.dead_queue()).await, Some(0));
}

#[tokio::test]
async fn mark_read_of_an_unknown_notification_is_dead_lettered_and_blocks_no_message() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;

    rig.send("notification.mark_read", json!({ "userId": "ada", "ids": ["n1", "n2"] })).await;
    rig.send("notification.create", json!({ "userId": "ada", "id": "n2", "title": "Hi" })).await;
    until_true("another message is stored meanwhile", async || store.ids("ada").await.len() == 1)
        .await;
    assert_eq!(
        rig.amqp.count(&rig.broker.dead_queue()).await,
        Some(0),
        "the message is dead-lettered before its retries"
    );

    let dead = rig.amqp.next(&rig.broker.dead_queue()).await;
    assert_eq!(dead.json()["data"]["ids"], json!(["n1", "n2"]));
    assert_eq!(dead.header("x-belfry-reason").unwrap(), "unknown_notification");
    assert_eq!(dead.header("x-belfry-error").unwrap(), "unknown notification ids: n1");
    assert_eq!(dead.header("x-belfry-attempts").unwrap(), "3");
    let unread = store.inner.state(&user("ada")).await.unwrap().unread.get();
    assert_eq!(unread, 0, "n2 is not marked as read");
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn store_outage_loses_no_message_and_does_not_flood_the_store() {
    let rig = Rig::new().await;
    let store = Store::new();
    store.set_down(true);
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    for n in 0..500 {
        let data = json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
        rig.send("notification.create", data).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let calls = store.calls_while_down();
    assert!((5..40).contains(&calls), "{calls} calls in two seconds");
    for queue in ["ingest.retry.100ms", "ingest.dead"] {
        let waiting = rig.amqp.count(&rig.broker.name(queue)).await.unwrap_or_default();
        assert_eq!(waiting, 0, "messages are republished to {queue}");
    }
    store.set_down(false);
    until_true("all are stored", async || store.ids("ada").await.len() == 500).await;
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn queue_declared_with_other_arguments_is_used_unchanged() {
    let rig = Rig::new().await;
    let queue = rig.broker.ingest_queue();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(10_000));
    rig.amqp.declare_queue(&queue, arguments).await;
    let data = json!({ "userId": "ada", "id": "n1", "title": "Hi" });
    rig.send("notification.create", data).await;

    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    until_true("it is stored", async || store.ids("ada").await.len() == 1).await;
    rig.wait_for_ingest().await;
    // Dead-lettering works as well.
    rig.send("nonsense", json!({})).await;
    assert_eq!(rig.amqp.next(&rig.broker.dead_queue()).await.json()["pattern"], "nonsense");
    rig.stop_all(ingest, publisher_task).await;
}

#[tokio::test]
async fn single_active_consumer_keeps_a_producers_order_across_nodes() {
    let rig = Rig::new().await;
    let queue = rig.broker.ingest_queue();
    let mut arguments = FieldTable::default();
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    rig.amqp.declare_queue(&queue, arguments).await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let first = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let second = rig.ingest(&publisher, store.handler());
    let sending = async {
        for n in 0..200 {
            let data = json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
            rig.send("notification.create", data).await;
            let data = json!({ "userId": "ada", "id": format!("n{n}") });
            rig.send("notification.mark_read", data).await;
        }
    };
    let failing_over = async {
        until_true("some are stored", async || store.ids("ada").await.len() > 50).await;
        first.stop().await;
    };
    tokio::join!(sending, failing_over);
    until_true("all took effect", async || {
        store.inner.state(&user("ada")).await.unwrap().revision.get() == 400
    })
    .await;
    rig.stop_all(second, publisher_task).await;
    // The changes alternate: each notification is created, then marked as read.
    for (n, notification) in (0_u64..).zip(store.inbox("ada").await) {
        let revisions = (notification.created_revision.get(), notification.revision.get());
        assert_eq!(revisions, (2 * n + 1, 2 * n + 2), "{}", notification.id);
    }
}

#[tokio::test]
async fn declared_queue_is_compatible_with_nestjs() {
    let rig = Rig::new().await;
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, Store::new().handler());
    rig.wait_for_ingest().await;
    // NestJS declares the queue in this way. The broker would refuse this if the queue had other arguments.
    rig.amqp.declare_queue(&rig.broker.ingest_queue(), FieldTable::default()).await;
    ingest.stop().await;
    publisher_task.stop().await;
}

#[tokio::test]
async fn stop_finishes_the_current_batch_and_leaves_the_rest() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let sending = async {
        for n in 0..300 {
            let data = json!({ "userId": "ada", "id": format!("n{n}"), "title": "Hi" });
            rig.send("notification.create", data).await;
        }
    };
    let stopping = async {
        until_true("some are stored", async || store.ids("ada").await.len() > 50).await;
        ingest.stop().await;
    };
    tokio::join!(sending, stopping);
    let stored = store.ids("ada").await;
    let left = rig.amqp.count(&rig.broker.ingest_queue()).await.unwrap();
    assert_eq!(stored.len() + left as usize, 300, "messages are lost or duplicated");
    let expected: Vec<_> = (0..stored.len()).map(|n| format!("n{n}")).collect();
    assert_eq!(stored, expected, "not stored in order");
    publisher_task.stop().await;
}

#[tokio::test]
async fn messages_with_malformed_properties_are_processed() {
    let rig = Rig::new().await;
    let store = Store::new();
    let (publisher, publisher_task) = rig.publisher().await;
    let ingest = rig.ingest(&publisher, store.handler());
    rig.wait_for_ingest().await;
    let (url, queue) = (rig.broker.url(), rig.broker.ingest_queue());
    let data = |id: &str| json!({ "userId": "ada", "id": id, "title": "Hi" });
    let body = |id: &str| json!({ "pattern": "notification.create", "data": data(id) }).to_string();

    raw::publish(url, &queue, &raw::correlation_id(b"\xff\xfe"), body("not-utf-8").as_bytes())
        .await;
    raw::publish(url, &queue, &raw::nested_headers(15_000), body("deep").as_bytes()).await;
    raw::publish(url, &queue, &raw::correlation_id(b"\xff"), b"{}").await;
    raw::publish(url, &queue, &raw::nested_headers(15_000), b"{}").await;
    rig.send("notification.create", data("next")).await;

    until_true("the last one is stored", async || store.ids("ada").await.len() == 3).await;
    assert_eq!(store.ids("ada").await, ["not-utf-8", "deep", "next"]);
    for _ in 0..2 {
        let dead = rig.amqp.next(&rig.broker.dead_queue()).await;
        assert_eq!(dead.header("x-belfry-reason").unwrap(), "unknown_pattern");
    }
    rig.stop_all(ingest, publisher_task).await;
}
