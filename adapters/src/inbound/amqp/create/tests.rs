//! Payloads of `notification.created` from open-source NestJS projects, and the notification stored for each.

use belfry_application::testing::{at, id};
use serde_json::{Value, json};

use super::*;
use crate::wire::{InvalidForm, Rfc3339};

const NOW: i64 = 1_795_946_400_000;

fn sent(data: &str, mapping: &MessageMapping) -> Result<SentNotification, InvalidMessage> {
    let data = serde_json::from_str(data).unwrap();
    sent_notification(data, mapping, None, || id("generated"), at(NOW))
}

/// The stored fields that differ from those of a notification to `ada` with the title `Hi`.
fn stored(data: &str) -> Value {
    let sent =
        sent(data, &MessageMapping::default()).unwrap_or_else(|error| panic!("{data}: {error}"));
    let first = &sent.draft;
    let users: Vec<_> = sent.recipients.iter().map(UserId::as_str).collect();
    let data: Value = first
        .data
        .as_ref()
        .map_or(Value::Null, |data| serde_json::from_str(data.as_str()).unwrap());
    let mut fields = json!({
        "users": users, "id": first.id.as_str(), "type": first.kind.as_str(),
        "title": first.title.as_str(), "message": first.message.as_str(), "data": data,
        "link": first.link.as_ref().map(Link::as_str), "priority": first.priority.as_str(),
        "createdAt": Rfc3339(first.created_at), "expiresAt": first.expires_at.map(Rfc3339),
        "read": sent.is_read,
    });
    let usual = json!({
        "users": ["ada"], "id": "generated", "type": "general", "title": "Hi", "message": "",
        "data": null, "link": null, "priority": "normal", "createdAt": Rfc3339(at(NOW)),
        "expiresAt": null, "read": false,
    });
    fields.as_object_mut().unwrap().retain(|name, value| usual[name.as_str()] != *value);
    fields
}

/// Compares each payload with the fields that [`stored`] returns for it.
#[track_caller]
fn assert_stored<const N: usize>(table: [(&str, Value); N]) {
    for (data, expected) in table {
        let repaired = crate::inbound::amqp::surrogates::without_lone_surrogates(data);
        assert_eq!(stored(&repaired), expected, "{data}");
    }
}

#[test]
fn recipients_ids_and_texts_of_known_payloads_are_stored() {
    assert_stored([
        // Recipients.
        (r#"{"userId":"ada","title":"Hi"}"#, json!({})),
        (r#"{"userId":42,"title":"Hi"}"#, json!({ "users": ["42"] })),
        (r#"{"recipientId":"ada","title":"Hi"}"#, json!({})),
        (r#"{"receiverId":"ada","title":"Hi"}"#, json!({})),
        (r#"{"user_id":"ada","title":"Hi"}"#, json!({})),
        (r#"{"recipient_id":7,"title":"Hi"}"#, json!({ "users": ["7"] })),
        (r#"{"recipient":"ada","title":"Hi"}"#, json!({})),
        (r#"{"targetUserId":"ada","title":"Hi"}"#, json!({})),
        (r#"{"toUserId":"ada","title":"Hi"}"#, json!({})),
        (r#"{"user":{"id":"ada"},"title":"Hi"}"#, json!({ "data": { "user": { "id": "ada" } } })),
        (
            r#"{"recipient":{"id":"ada"},"title":"Hi"}"#,
            json!({ "data": { "recipient": { "id": "ada" } } }),
        ),
        (r#"{"userIds":["ada","bob","ada"],"title":"Hi"}"#, json!({ "users": ["ada", "bob"] })),
        (r#"{"recipientIds":[1,2],"title":"Hi"}"#, json!({ "users": ["1", "2"] })),
        (r#"{"userId":["ada","bob"],"title":"Hi"}"#, json!({ "users": ["ada", "bob"] })),
        (
            r#"{"userId":"ada","senderId":"bob","title":"Hi"}"#,
            json!({ "data": { "senderId": "bob" } }),
        ),
        // The notification in a field of the data.
        (
            r#"{"userId":"ada","notification":{"id":"n1","title":"Hi"},"unreadCount":3}"#,
            json!({ "id": "n1" }),
        ),
        (r#"{"notification":{"userId":"ada","title":"Hi"}}"#, json!({})),
        (
            r#"{"notification":{"user":{"id":"ada"},"title":"Hi"}}"#,
            json!({ "data": { "user": { "id": "ada" } } }),
        ),
        (r#"{"notification":{"recipientId":"ada","title":"Hi"}}"#, json!({})),
        (
            r#"{"userId":"ada","notification":{"title":"Hi"},"actorId":"bob"}"#,
            json!({ "data": { "actorId": "bob" } }),
        ),
        (r#"{"userId":"ada","notification":{"title":"Hi","userId":"bob"}}"#, json!({})),
        (r#"{"userId":"ada","notification":{"title":"Hi"},"unreadCount":"3"}"#, json!({})),
        (r#"{"userId":"ada","notification":{"title":"Hi"},"unreadCount":{"count":3}}"#, json!({})),
        // Ids.
        (r#"{"userId":"ada","id":17,"title":"Hi"}"#, json!({ "id": "17" })),
        (r#"{"userId":"ada","notificationId":"n1","title":"Hi"}"#, json!({ "id": "n1" })),
        (r#"{"userId":"ada","_id":"65f0a1","title":"Hi"}"#, json!({ "id": "65f0a1" })),
        (r#"{"userId":"ada","id":null,"title":"Hi"}"#, json!({})),
        // Texts.
        (r#"{"userId":"ada","title":"Hi","message":"There"}"#, json!({ "message": "There" })),
        (r#"{"userId":"ada","title":"Hi","body":"There"}"#, json!({ "message": "There" })),
        (r#"{"userId":"ada","title":"Hi","content":"There"}"#, json!({ "message": "There" })),
        (r#"{"userId":"ada","title":"Hi","text":"There"}"#, json!({ "message": "There" })),
        (r#"{"userId":"ada","subject":"Hi","description":"There"}"#, json!({ "message": "There" })),
        (r#"{"userId":"ada","message":"Hi"}"#, json!({})),
        (r#"{"userId":"ada","content":"Hi"}"#, json!({})),
        (r#"{"userId":"ada","body":"Hi"}"#, json!({})),
        (r#"{"userId":"ada","title":null,"message":"Hi"}"#, json!({})),
        (r#"{"userId":"ada","title":"","message":"Hi"}"#, json!({})),
        (r#"{"userId":"ada","message":"Hi\nThere"}"#, json!({ "message": "Hi\nThere" })),
        (r#"{"userId":"ada","title":7}"#, json!({ "title": "7" })),
        (r#"{"userId":"ada","type":"LIKE"}"#, json!({ "type": "LIKE", "title": "LIKE" })),
        (
            r#"{"userId":"ada","title":"Hi","message":"There","body":"Again"}"#,
            json!({ "message": "There", "data": { "body": "Again" } }),
        ),
        (r#"{"userId":"ada","title":"Hi \ud83d"}"#, json!({ "title": "Hi \u{fffd}" })),
        // Types.
        (
            r#"{"userId":"ada","title":"Hi","type":"order.shipped"}"#,
            json!({ "type": "order.shipped" }),
        ),
        (r#"{"userId":"ada","title":"Hi","type":"NEW MESSAGE"}"#, json!({ "type": "NEW_MESSAGE" })),
        (r#"{"userId":"ada","title":"Hi","type":3}"#, json!({ "type": "3" })),
        (r#"{"userId":"ada","title":"Hi","type":null}"#, json!({})),
        (r#"{"userId":"ada","title":"Hi","notificationType":"LIKE"}"#, json!({ "type": "LIKE" })),
        (r#"{"userId":"ada","title":"Hi","category":"social"}"#, json!({ "type": "social" })),
    ]);
}

#[test]
fn other_fields_of_known_payloads_are_stored() {
    assert_stored([
        // Data.
        (r#"{"userId":"ada","title":"Hi","data":{"a":1.50}}"#, json!({ "data": { "a": 1.5 } })),
        (r#"{"userId":"ada","title":"Hi","data":"{\"a\":1}"}"#, json!({ "data": { "a": 1 } })),
        (
            r#"{"userId":"ada","title":"Hi","data":"plain"}"#,
            json!({ "data": { "value": "plain" } }),
        ),
        (r#"{"userId":"ada","title":"Hi","data":[1,2]}"#, json!({ "data": { "value": [1, 2] } })),
        (r#"{"userId":"ada","title":"Hi","data":[]}"#, json!({ "data": {} })),
        (r#"{"userId":"ada","title":"Hi","metadata":{"a":{}}}"#, json!({ "data": { "a": {} } })),
        (r#"{"userId":"ada","title":"Hi","payload":{"a":1}}"#, json!({ "data": { "a": 1 } })),
        (
            r#"{"userId":"ada","title":"Hi","data":{"a":1},"metadata":{"b":2}}"#,
            json!({ "data": { "a": 1, "metadata": { "b": 2 } } }),
        ),
        (
            r#"{"userId":"ada","title":"Hi","actorId":7,"imageUrl":"/a.png"}"#,
            json!({ "data": { "actorId": 7, "imageUrl": "/a.png" } }),
        ),
        (
            r#"{"userId":"ada","title":"Hi","data":{"a":1},"a":2}"#,
            json!({ "data": { "a": 1, "_omitted": ["a"] } }),
        ),
        // Links.
        (r#"{"userId":"ada","title":"Hi","link":"/orders/7"}"#, json!({ "link": "/orders/7" })),
        (
            r#"{"userId":"ada","title":"Hi","actionUrl":"https://a.example/7"}"#,
            json!({ "link": "https://a.example/7" }),
        ),
        (r#"{"userId":"ada","title":"Hi","url":"/7"}"#, json!({ "link": "/7" })),
        (r#"{"userId":"ada","title":"Hi","link":""}"#, json!({})),
        // Priorities.
        (r#"{"userId":"ada","title":"Hi","priority":"HIGH"}"#, json!({ "priority": "high" })),
        (r#"{"userId":"ada","title":"Hi","priority":"medium"}"#, json!({})),
        (r#"{"userId":"ada","title":"Hi","priority":1}"#, json!({ "data": { "priority": 1 } })),
        // Times.
        (
            r#"{"userId":"ada","title":"Hi","createdAt":"2026-11-29T09:00:00Z"}"#,
            json!({ "createdAt": "2026-11-29T09:00:00.000Z" }),
        ),
        (
            r#"{"userId":"ada","title":"Hi","createdAt":1795942800000}"#,
            json!({ "createdAt": "2026-11-29T09:00:00.000Z" }),
        ),
        (
            r#"{"userId":"ada","title":"Hi","created_at":"2026-11-29 09:00:00"}"#,
            json!({ "createdAt": "2026-11-29T09:00:00.000Z" }),
        ),
        (
            r#"{"userId":"ada","title":"Hi","createdAt":"yesterday"}"#,
            json!({ "data": { "createdAt": "yesterday" } }),
        ),
        (
            r#"{"userId":"ada","title":"Hi","expiresAt":1795950000}"#,
            json!({ "expiresAt": "2026-11-29T11:00:00.000Z" }),
        ),
        // Read state.
        (r#"{"userId":"ada","title":"Hi","isRead":false,"readAt":null}"#, json!({})),
        (r#"{"userId":"ada","title":"Hi","isRead":true}"#, json!({ "read": true })),
        (r#"{"userId":"ada","title":"Hi","read":true}"#, json!({ "read": true })),
        (
            r#"{"userId":"ada","title":"Hi","readAt":"2026-11-29T09:00:00Z"}"#,
            json!({ "read": true }),
        ),
    ]);
}

#[test]
fn error_of_an_invalid_message_names_the_field() {
    for (data, field) in [
        (r#"{"title":"Hi"}"#, "userId"),
        (r#"{"userId":"a b","title":"Hi"}"#, "userId"),
        (r#"{"userId":{"name":"ada"},"title":"Hi"}"#, "userId"),
        (r#"{"userIds":[],"title":"Hi"}"#, "userId"),
        (r#"{"userId":"ada"}"#, "title"),
        (r#"{"userId":"ada","title":"Hi","id":"a b"}"#, "id"),
        (r#"{"userId":"ada","title":"Hi","link":"javascript:x"}"#, "link"),
        (r#"{"userId":"ada","title":"a\u0000b"}"#, "title"),
        (r#"{"userId":"ada","title":"Hi","createdAt":20,"expiresAt":10}"#, "expiresAt"),
        (r#"["ada"]"#, "data"),
    ] {
        match sent(data, &MessageMapping::default()) {
            Err(InvalidMessage::Field(InvalidForm { field: named, .. })) => {
                assert_eq!(named, field, "{data}");
            }
            other => panic!("{data}: {:?}", other.map(|sent| sent.draft)),
        }
    }
}

#[test]
fn long_text_is_cut_or_rejected() {
    let data = json!({ "userId": "ada", "title": "ß".repeat(201), "message": "m".repeat(4_001) });
    let cut = sent(&data.to_string(), &MessageMapping::default()).unwrap().draft;
    assert_eq!(cut.title.as_str(), format!("{}…", "ß".repeat(199)));
    assert_eq!(cut.message.as_str(), format!("{}…", "m".repeat(3_999)));
    let strict = MessageMapping { cut_long_texts: false, ..MessageMapping::default() };
    let error = sent(&data.to_string(), &strict).err().unwrap();
    assert!(error.to_string().starts_with("title: "), "{error}");
}

#[test]
fn fields_that_do_not_fit_into_data_are_listed_as_omitted_or_the_message_is_rejected() {
    let data = json!({
        "userId": "ada", "title": "Hi", "data": { "a": 1 }, "small": 2, "large": "x".repeat(16_000),
    });
    let draft = sent(&data.to_string(), &MessageMapping::default()).unwrap().draft;
    let kept: Value = serde_json::from_str(draft.data.unwrap().as_str()).unwrap();
    assert_eq!(kept, json!({ "a": 1, "small": 2, "_omitted": ["large"] }));
    let strict = MessageMapping { cut_long_texts: false, ..MessageMapping::default() };
    let error = sent(&data.to_string(), &strict).err().unwrap();
    assert_eq!(error.to_string(), "data: cannot also hold the fields large");
}

#[test]
fn configured_recipient_field_takes_precedence() {
    let mut mapping = MessageMapping::default();
    mapping.recipient.insert(0, "to.account".parse().unwrap());
    let data = r#"{"userId":"bob","to":{"account":"ada"},"title":"Hi"}"#;
    assert_eq!(sent(data, &mapping).unwrap().draft.user.as_str(), "ada");
}

#[test]
fn read_notification_without_an_id_takes_the_message_id() {
    let data = serde_json::from_str(r#"{"userId":"ada","title":"Hi","isRead":true}"#).unwrap();
    let message_id = id("shop|7");
    let mapping = MessageMapping::default();
    let sent = sent_notification(data, &mapping, Some(&message_id), || id("generated"), at(NOW));
    let draft = sent.unwrap().draft;
    assert_eq!((&draft.id, draft.dedupe_key.as_ref()), (&message_id, Some(&message_id)));
}
