use belfry_application::testing::user;

use super::*;

fn decode(pattern: Pattern, data: &str) -> Result<ForwardedEvent, InvalidMessage> {
    let mut events = forwarded_events(&envelope(pattern, data), &MessageMapping::default())?;
    assert_eq!(events.len(), 1);
    Ok(events.remove(0))
}

fn envelope(pattern: Pattern, data: &str) -> Envelope<'_> {
    Envelope {
        pattern,
        name: "notification.created".to_owned(),
        data: serde_json::from_str(data).unwrap(),
        message_id: None,
        trace: None,
        is_request: false,
        is_forwarded: false,
        accepted_at: None,
    }
}

fn new(json: &str) -> ForwardedPush {
    ForwardedPush::New(json.into())
}

#[test]
fn notification_is_forwarded_byte_for_byte() {
    let inner = r#"{"id":1.50,  "a":"\u00e4","z":{"y":[ ]}}"#;
    let wrapped = format!(r#"{{"userId":"ada","notification":{inner},"unreadCount":7}}"#);
    let event = decode(Pattern::Create, &wrapped).unwrap();
    assert_eq!(event.user, user("ada"));
    assert_eq!(event.push, Some(new(inner)));
    assert_eq!(event.unread_count.as_deref(), Some("7"));

    let flat = r#"{"userId":42,"title":"Hi" }"#;
    let event = decode(Pattern::Create, flat).unwrap();
    assert_eq!((event.user, event.push), (user("42"), Some(new(flat))));
    assert_eq!(event.unread_count, None);
}

#[test]
fn decoding_copies_the_notification_only_once() {
    let measure = |fields: u32| {
        let fields: Vec<_> = (0..fields).map(|n| format!(r#""f{n}":{{"a":["{n}"]}}"#)).collect();
        let inner = fields.join(",");
        let data = format!(r#"{{"userId":"ada","notification":{{{inner}}},"unreadCount":7}}"#);
        let allocations = allocation_counter::measure(|| {
            decode(Pattern::Create, &data).unwrap();
        });
        (allocations.count_total, allocations.bytes_total, data.len() as u64)
    };
    let (small_count, small_bytes, small_len) = measure(1);
    let (large_count, large_bytes, large_len) = measure(1_000);
    assert!(small_count > 0);
    assert_eq!(small_count, large_count);
    // The size of the copy is rounded up to a multiple of 8 bytes.
    let (more_bytes, more_len) = (large_bytes - small_bytes, large_len - small_len);
    assert!(
        more_bytes < more_len + 8,
        "a message that is {more_len} bytes longer allocates {more_bytes} bytes more"
    );
}

#[test]
fn recipient_may_be_in_the_notification() {
    let event = decode(Pattern::Create, r#"{"notification":{"userId":"ada"}}"#).unwrap();
    assert_eq!(event.user, user("ada"));
}

#[test]
fn marked_read_is_forwarded_unchanged() {
    let data = r#"{"userId":"ada","notificationId":null,"all":true,"unreadCount":0}"#;
    for pattern in [Pattern::MarkRead, Pattern::MarkAllRead] {
        let event = decode(pattern, data).unwrap();
        assert_eq!(event.push, Some(ForwardedPush::MarkedRead(data.into())));
        assert_eq!(event.unread_count.as_deref(), Some("0"));
    }
}

#[test]
fn deleted_and_custom_events_are_forwarded_unchanged() {
    let data = r#"{"userId":"ada", "ids":["n1"],"unreadCount":2}"#;
    let event = decode(Pattern::Delete, data).unwrap();
    assert_eq!(event.push, Some(ForwardedPush::Deleted(data.into())));
    assert_eq!(event.unread_count.as_deref(), Some("2"));
    let event = decode(Pattern::Custom("order:shipped".into()), data).unwrap();
    let custom = ForwardedPush::Custom { event: "order:shipped".into(), data: data.into() };
    assert_eq!((event.push, event.unread_count), (Some(custom), None));
}

#[test]
fn unread_count_needs_no_notification() {
    for data in [
        r#"{"userId":"ada","count":3}"#,
        r#"{"userId":"ada","unreadCount":3}"#,
        r#"{"userId":"ada","count":"3"}"#,
        r#"{"userId":"ada","unreadCount":{"count":3}}"#,
        r#"{"userId":"ada","unreadCount":{"unreadCount":"3"}}"#,
    ] {
        let event = decode(Pattern::UnreadCount, data).unwrap();
        assert_eq!((event.push, event.unread_count.as_deref()), (None, Some("3")));
    }
}

#[test]
fn integers_are_read_as_in_other_messages() {
    use crate::wire::integer::CASES;

    // Strings and objects are left out: here, a string may be a user id, and a count may be in an object.
    for (json, integer) in CASES.into_iter().filter(|(json, _)| !json.starts_with(['"', '{'])) {
        let event = decode(Pattern::UnreadCount, &format!(r#"{{"userId":{json},"count":7}}"#));
        let user = event.ok().map(|event| event.user.to_string());
        assert_eq!(user, integer.map(|user| user.to_string()), "{json}");
        let event = decode(Pattern::Create, &format!(r#"{{"userId":7,"unreadCount":{json}}}"#));
        let count = event.ok().and_then(|event| event.unread_count);
        let expected = integer.filter(|count| u64::try_from(*count).is_ok());
        assert_eq!(count.as_deref(), expected.map(|count| count.to_string()).as_deref());
    }
}

#[test]
fn missing_or_invalid_recipient_or_count_is_rejected() {
    for (pattern, data) in [
        (Pattern::Create, r#"{"notification":{"title":"Hi"}}"#),
        (Pattern::Create, r#"{"userId":"a b"}"#),
        (Pattern::Create, r#"{"userId":["ada"]}"#),
        (Pattern::UnreadCount, r#"{"userId":"ada"}"#),
        (Pattern::UnreadCount, r#"{"userId":"ada","count":"7 "}"#),
        (Pattern::UnreadCount, r#"{"userId":"ada","count":{}}"#),
        (Pattern::UnreadCount, r#"{"userId":"ada","unreadCount":-1}"#),
        (Pattern::Create, r#"["ada"]"#),
        (Pattern::Create, "null"),
    ] {
        assert!(decode(pattern, data).is_err(), "{data}");
    }
    for field in ["count", "unreadCount"] {
        let error =
            decode(Pattern::UnreadCount, &format!(r#"{{"userId":"ada","{field}":"many"}}"#));
        assert_eq!(error.unwrap_err(), InvalidMessage::field(field, "must be a whole number"));
    }
    // A null is an absent count.
    let event = decode(Pattern::Create, r#"{"userId":"ada","unreadCount":null}"#).unwrap();
    assert_eq!(event.unread_count, None);
}

#[test]
fn notification_with_an_invalid_field_is_forwarded() {
    for fields in [
        r#""unreadCount":"7 ""#,
        r#""unreadCount":"-1""#,
        r#""unreadCount":-1"#,
        r#""unreadCount":7.5"#,
        r#""unreadCount":{"count":"many"}"#,
        r#""unreadCount":[7]"#,
        r#""unreadCount":"\ud83d""#,
        r#""count":[],"surprise":{"\u00e4":1e999}"#,
        r#""createdAt":"yesterday","expiresAt":-1"#,
        r#""title":"cut off \ud83d","x":{"\ud83d":1}"#,
    ] {
        let data = format!(r#"{{"userId":"ada",{fields}}}"#);
        for (pattern, push) in [
            (Pattern::Create, new(&data)),
            (Pattern::MarkRead, ForwardedPush::MarkedRead(data.as_str().into())),
        ] {
            let event = decode(pattern, &data).unwrap_or_else(|error| panic!("{fields}: {error}"));
            assert_eq!((event.push.as_ref(), event.unread_count.as_ref()), (Some(&push), None));
        }
    }
}

#[test]
fn decoded_event_is_the_encoded_one() {
    let properties = lapin::BasicProperties::default();
    let data =
        r#"{"userIds":["ada","bob"], "id":1.50,"a":"\u00e4","link":"file:x","unreadCount":7}"#;
    let envelope = envelope(Pattern::Create, data);
    let body = encode_forwarded(&envelope).unwrap();
    let text = std::str::from_utf8(&body).unwrap();
    // NestJS would treat an `id` beside the pattern as a request.
    assert_eq!(text, format!(r#"{{"pattern":"notification.created","data":{data}}}"#));
    let message = Incoming {
        body: &body,
        exchange: "belfry.events",
        routing_key: "notification.created",
        properties: &properties,
    };
    let mapping = MessageMapping::default();
    let events = decode_forwarded(&message, &mapping).unwrap();
    assert_eq!(events, forwarded_events(&envelope, &mapping).unwrap());
    let users: Vec<_> = events.iter().map(|event| event.user.as_str()).collect();
    assert_eq!(users, ["ada", "bob"]);
    assert_eq!(events[0].push, Some(new(&data.replace(r#""file:x""#, "null"))));
}

#[test]
fn event_larger_than_nodes_accept_is_not_encoded() {
    let data = format!(r#"{{"userId":"ada","a":"{}"}}"#, "x".repeat(MAX_BODY - 40));
    let encoded = encode_forwarded(&envelope(Pattern::Create, &data));
    assert!(matches!(encoded, Err(InvalidMessage::TooLarge(_))));
}
