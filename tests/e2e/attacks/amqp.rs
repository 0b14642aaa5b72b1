//! Invalid messages of every kind: each goes to the dead-letter queue with its reason, and valid messages
//! around it are processed.

use std::collections::BTreeMap;

use belfry_tests::amqp::Amqp;
use belfry_tests::raw_amqp;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use serde_json::{Value, json};

use super::Target;
use crate::setup::Setup;

fn create(data: &Value) -> Vec<u8> {
    json!({ "pattern": "notification.create", "data": data }).to_string().into()
}

#[tokio::test]
async fn invalid_messages_are_dead_lettered_and_valid_ones_are_processed() {
    let target = Target::shared(Setup::Servers).await;
    let broker = target.deployment.broker();
    let (amqp, queue) = (Amqp::connect(broker.url()).await, broker.ingest_queue());
    let receiver = target.deployment.user("receiver");
    let user = receiver.id();
    let with_field = |field: &str, value: Value| {
        let mut data = json!({ "userId": user, "title": "Hi" });
        data[field] = value;
        create(&data)
    };
    let with_pattern = |pattern: &Value| {
        json!({ "pattern": pattern, "data": { "userId": user, "title": "Hi" } })
            .to_string()
            .into_bytes()
    };
    let mark_read = |data: Value| {
        json!({ "pattern": "notification.mark_read", "data": data }).to_string().into_bytes()
    };
    let nested_lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let nested_objects =
        |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let with_data =
        |data: String| format!(r#"{{"pattern":"notification.create","data":{data}}}"#).into_bytes();
    let (unreadable, invalid, unknown) = ("unreadable", "invalid", "unknown_pattern");
    // Each row has the attempt, the body of the message, and the reason of its dead letter.
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], unreadable),
        ("white space", b" \r\n\t".to_vec(), unreadable),
        ("not JSON", b"hello".to_vec(), unreadable),
        ("half of JSON", b"{\"pattern\":".to_vec(), unreadable),
        ("JSON followed by more", b"{}{}".to_vec(), unreadable),
        ("a list", b"[]".to_vec(), unreadable),
        ("a text", b"\"notification.create\"".to_vec(), unreadable),
        ("null", b"null".to_vec(), unreadable),
        ("a number", b"7".to_vec(), unreadable),
        ("not UTF-8", b"{\"pattern\":\"\xff\"}".to_vec(), unreadable),
        ("a byte order mark and no pattern", b"\xef\xbb\xbf{}".to_vec(), unknown),
        ("UTF-16", "{}".encode_utf16().flat_map(u16::to_be_bytes).collect(), unreadable),
        ("compressed", b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), unreadable),
        ("2 MB", with_field("message", json!("x".repeat(2_000_000))), unreadable),
        ("a list nested 100,000 deep", with_data(nested_lists(100_000)), invalid),
        ("objects nested 100,000 deep", with_data(nested_objects(100_000)), invalid),
        ("unclosed brackets", vec![b'['; 500_000], unreadable),
        ("unclosed braces", r#"{"a":"#.repeat(100_000).into_bytes(), unreadable),
        ("a pattern twice", br#"{"pattern":"a","pattern":"b","data":{}}"#.to_vec(), unreadable),
        ("no pattern", b"{}".to_vec(), unknown),
        ("an unknown pattern", with_pattern(&json!("order.placed")), unknown),
        ("a pattern of wildcards", with_pattern(&json!("notification.*")), unknown),
        ("a pattern in capitals", with_pattern(&json!("Notification.Create")), unknown),
        ("a pattern with a space", with_pattern(&json!("notification.create ")), unknown),
        (
            "a pattern that is an object",
            with_pattern(&json!({ "is": "notification.create" })),
            unknown,
        ),
        ("a pattern that is a list", with_pattern(&json!(["notification.create"])), unknown),
        ("a pattern of 100 kB", with_pattern(&json!("p".repeat(100_000))), unknown),
        ("an event of Belfry's own", with_pattern(&json!("belfry.passed")), unknown),
        (
            "the count of another service",
            with_pattern(&json!("notification.unread_count")),
            unknown,
        ),
        ("no data", br#"{"pattern":"notification.create"}"#.to_vec(), invalid),
        ("data that is a list", with_data("[]".to_owned()), invalid),
        ("data that is a text", with_data("\"x\"".to_owned()), invalid),
        ("no user", create(&json!({ "title": "Hi" })), invalid),
        ("no title", create(&json!({ "userId": user })), invalid),
        ("a user that is an object", with_field("userId", json!({ "$ne": null })), invalid),
        ("a user in a nested list", with_field("userId", json!([[user]])), invalid),
        ("a user with a space", with_field("userId", json!(format!("{user} "))), invalid),
        ("a user with a line end", with_field("userId", json!(format!("{user}\n"))), invalid),
        ("a user of 10 kB", with_field("userId", json!("u".repeat(10_000))), invalid),
        ("an id of 10 kB", with_field("id", json!("i".repeat(10_000))), invalid),
        ("an id that is a fraction", with_field("id", json!(4.2)), invalid),
        ("a title of a zero byte", with_field("title", json!("\0")), invalid),
        (
            "a data field of 100 kB",
            with_field("data", json!({ "x": "y".repeat(100_000) })),
            invalid,
        ),
        ("a javascript: link", with_field("link", json!("javascript:alert(1)")), invalid),
        ("a file: link", with_field("link", json!("file:///etc/passwd")), invalid),
        ("an id that no URL can name", with_field("id", json!("..")), invalid),
        ("a dedupe key of 10 kB", with_field("dedupeKey", json!("d".repeat(10_000))), invalid),
        ("mark_read without an id", mark_read(json!({ "userId": user })), invalid),
        ("mark_read with no ids", mark_read(json!({ "userId": user, "ids": [] })), invalid),
        (
            "mark_read with 1,001 ids",
            mark_read(json!({ "userId": user, "ids": vec!["n"; 1_001] })),
            invalid,
        ),
        (
            "mark_read with an id of 10 kB",
            mark_read(json!({ "userId": user, "id": "i".repeat(10_000) })),
            invalid,
        ),
        ("mark_read without a user", mark_read(json!({ "id": "n1" })), invalid),
    ];
    let mut expected = BTreeMap::new();
    for (number, (attempt, body, reason)) in rows.into_iter().enumerate() {
        let valid = create(&json!({ "userId": user, "id": format!("n{number}"), "title": "Hi" }));
        let properties = BasicProperties::default().with_message_id(attempt.into());
        amqp.publish("", &queue, body, properties).await;
        amqp.publish("", &queue, valid, BasicProperties::default()).await;
        expected.insert(attempt.to_owned(), reason.to_owned());
    }
    // Valid messages with properties that no library would send.
    for (number, properties) in [
        raw_amqp::nested_headers(15_000),
        raw_amqp::nested_headers(1),
        raw_amqp::correlation_id(b"\xff\xfe"),
        raw_amqp::correlation_id(&[0; 255]),
    ]
    .iter()
    .enumerate()
    {
        let data = json!({ "userId": user, "id": format!("odd{number}"), "title": "Hi" });
        raw_amqp::publish(broker.url(), &queue, properties, &create(&data)).await;
    }
    // Values of a wrong type, range or size that Belfry converts, shortens or ignores.
    let lenient = [
        with_field("title", json!(7)),
        with_field("title", json!("t".repeat(10_000))),
        with_field("data", json!([1])),
        with_field("priority", json!("highest")),
        with_field("createdAt", json!("yesterday")),
        with_field("expiresAt", json!(1e300)),
        with_field("userId", json!([user])),
        with_pattern(&json!({ "cmd": "notification.create" })),
    ];
    for body in &lenient {
        amqp.publish("", &queue, body, BasicProperties::default()).await;
    }
    // Unknown fields become part of `data`. A sender may mark the notification as read, but cannot set the
    // time or the revision.
    let more = json!({
        "userId": user, "id": "more", "title": "Hi", "isRead": true, "readAt": "2020-01-01T00:00:00Z",
        "revision": 99, "__proto__": { "admin": true }, "deleted": true, "user_id": target.victim.id(),
    });
    amqp.publish("", &queue, create(&more), BasicProperties::default()).await;

    let stored = target.deployment.until_stored(&receiver, "more").await;
    assert_ne!(stored["readAt"], "2020-01-01T00:00:00Z");
    for field in ["__proto__", "deleted", "user_id"] {
        assert!(stored.get(field).is_none(), "{field}: {stored}");
    }
    assert_eq!(stored["userId"], user);
    // One valid message for each invalid one, the four with odd properties, and the lenient ones. The
    // notification `more` is not counted, because it is read.
    let unread = expected.len() + 4 + lenient.len();
    until_true("the valid messages are stored", async || {
        let count = receiver.http().get("/v1/notifications/unread-count").await.expect(200);
        count["count"] == unread
    })
    .await;
    let dead = broker.dead_queue();
    until_true("the others are dead letters", async || {
        usize::try_from(amqp.count(&dead).await.unwrap_or_default()) == Ok(expected.len())
    })
    .await;
    let mut reasons = BTreeMap::new();
    while let Some(message) = amqp.take(&dead).await {
        let attempt = message.properties.message_id().as_ref().unwrap().to_string();
        let error = message.header("x-belfry-error").unwrap();
        assert!(!error.is_empty() && error.len() < 2_000, "{attempt}: {error:.300}");
        reasons.insert(attempt, message.header("x-belfry-reason").unwrap());
    }
    assert_eq!(reasons, expected);
    assert_eq!(amqp.count(&queue).await, Some(0));
    target.assert_unharmed().await;
}
