use std::borrow::Cow;
use std::sync::Arc;

use belfry_application::push::ForwardedPush;
use belfry_application::use_cases::ForwardedEvent;
use belfry_domain::UserId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::debug;

use super::command::user;
use super::create::{missing_recipient, recipients};
use super::invalid_message::InvalidMessage;
use super::json_fields::JsonFields;
use super::json_object::{borrowed, is_object};
use super::message::Envelope;
use super::message_mapping::MessageMapping;
use super::pattern::Pattern;
use crate::wire::{Integer, TextOrNumber};

/// The data of an ingest message. `notification` may be absent: then the data is the notification itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForwardForm<'a> {
    user_id: Option<TextOrNumber>,
    #[serde(borrow)]
    notification: Option<&'a RawValue>,
    #[serde(borrow)]
    unread_count: Option<&'a RawValue>,
    #[serde(borrow)]
    count: Option<&'a RawValue>,
}

/// Decodes the events of an ingest message in forward mode, one for each recipient. The service's JSON stays
/// unchanged.
pub(super) fn forwarded_events(
    envelope: &Envelope<'_>,
    mapping: &MessageMapping,
) -> Result<Vec<ForwardedEvent>, InvalidMessage> {
    let data = envelope.data;
    let ForwardForm { user_id, notification, unread_count, count } = borrowed(data)?;
    let notification = notification.filter(|json| is_object(json)).unwrap_or(data);
    let users = match user_id {
        Some(user_id) => vec![user(&user_id)?],
        None => users(data, notification, mapping)?,
    };
    let unread_count = match envelope.pattern {
        Pattern::UnreadCount => {
            let count = unread_count.or(count);
            let count = count.ok_or_else(|| InvalidMessage::field("count", "is missing"))?;
            Some(checked_count(count)?)
        }
        // The count accompanies the event. An invalid one must not cost the event.
        _ => unread_count.and_then(|count| match checked_count(count) {
            Ok(count) => Some(count),
            Err(error) => {
                debug!(%error, "forwarding an event without its unread count");
                None
            }
        }),
    };
    let push = match envelope.pattern {
        Pattern::Create => Some(ForwardedPush::New(shared(notification))),
        Pattern::MarkRead | Pattern::MarkAllRead => Some(ForwardedPush::MarkedRead(shared(data))),
        Pattern::UnreadCount => None,
        Pattern::Delete => {
            return Err(InvalidMessage::UnknownPattern("notification.delete".to_owned()));
        }
        Pattern::List => {
            return Err(InvalidMessage::UnknownPattern("notification.list".to_owned()));
        }
        Pattern::RevokeTokens => {
            return Err(InvalidMessage::UnknownPattern("user.revoke_tokens".to_owned()));
        }
    };
    let event =
        |user| ForwardedEvent { user, push: push.clone(), unread_count: unread_count.clone() };
    Ok(users.into_iter().map(event).collect())
}

/// The recipients in a field other than `userId` of the data.
fn users(
    data: &RawValue,
    notification: &RawValue,
    mapping: &MessageMapping,
) -> Result<Vec<UserId>, InvalidMessage> {
    for json in [data, notification] {
        let mut fields: JsonFields<'_> = borrowed(json)?;
        if let Some(users) = recipients(&mut fields, mapping)? {
            return Ok(users);
        }
    }
    Err(missing_recipient())
}

fn raw(json: Option<&Arc<str>>) -> Result<Option<&RawValue>, serde_json::Error> {
    json.map(|json| serde_json::from_str(json)).transpose()
}

/// The unread count as clients read it: an integer without fraction or exponent.
fn checked_count(raw: &RawValue) -> Result<Arc<str>, InvalidMessage> {
    let count = serde_json::from_str::<Integer>(raw.get()).ok().and_then(Integer::to::<u64>);
    match count {
        Some(count) => Ok(count.to_string().into()),
        None => Err(InvalidMessage::field("unreadCount", "must be a whole number")),
    }
}

fn shared(raw: &RawValue) -> Arc<str> {
    raw.get().into()
}

/// A forwarded event in the node queues: `{"pattern":"belfry.passed","data":{…}}`.
#[derive(Debug, Serialize, Deserialize)]
struct ForwardedEventForm<'a> {
    #[serde(borrow)]
    pattern: Cow<'a, str>,
    #[serde(borrow)]
    data: ForwardedDataForm<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForwardedDataForm<'a> {
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    new: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    marked_read: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    unread_count: Option<&'a RawValue>,
}

/// Why a body is not a forwarded event.
pub(super) type InvalidForwardedEvent = Box<dyn std::error::Error + Send + Sync>;

/// Encodes a forwarded event for the node queues. The service's JSON stays unchanged.
pub(super) fn encode_forwarded(event: &ForwardedEvent) -> Result<Vec<u8>, serde_json::Error> {
    // An unread count is the same event whether it is a push of its own or accompanies one.
    let (new, marked_read, count) = match &event.push {
        Some(ForwardedPush::New(json)) => (Some(json), None, None),
        Some(ForwardedPush::MarkedRead(json)) => (None, Some(json), None),
        Some(ForwardedPush::UnreadCount(json)) => (None, None, Some(json)),
        None => (None, None, None),
    };
    let data = ForwardedDataForm {
        user_id: event.user.as_str().into(),
        new: raw(new)?,
        marked_read: raw(marked_read)?,
        unread_count: raw(event.unread_count.as_ref().or(count))?,
    };
    serde_json::to_vec(&ForwardedEventForm {
        pattern: crate::amqp::Topology::FORWARDED.into(),
        data,
    })
}

/// Decodes the bytes of [`encode_forwarded`].
pub(super) fn decode_forwarded(body: &[u8]) -> Result<ForwardedEvent, InvalidForwardedEvent> {
    let ForwardedEventForm { data, .. } = serde_json::from_slice(body)?;
    let push = match (data.new, data.marked_read) {
        (Some(json), _) => Some(ForwardedPush::New(shared(json))),
        (None, Some(json)) => Some(ForwardedPush::MarkedRead(shared(json))),
        (None, None) => None,
    };
    Ok(ForwardedEvent {
        user: UserId::parse(&data.user_id)?,
        push,
        unread_count: data.unread_count.map(shared),
    })
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::user;

    use super::*;

    fn decode(pattern: Pattern, data: &str) -> Result<ForwardedEvent, InvalidMessage> {
        let data = serde_json::from_str(data).unwrap();
        let envelope = Envelope { pattern, data, message_id: None, trace: None, is_request: false };
        let mut events = forwarded_events(&envelope, &MessageMapping::default())?;
        assert_eq!(events.len(), 1);
        Ok(events.remove(0))
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
    fn notification_is_copied_once_whatever_its_size() {
        let measure = |fields: u32| {
            let fields: Vec<_> =
                (0..fields).map(|n| format!(r#""f{n}":{{"a":["{n}"]}}"#)).collect();
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
        let (more_bytes, longer) = (large_bytes - small_bytes, large_len - small_len);
        assert!(more_bytes < longer + 8, "{more_bytes} bytes for {longer} more in the message");
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
    fn unread_count_needs_no_notification() {
        for data in [r#"{"userId":"ada","count":3}"#, r#"{"userId":"ada","unreadCount":3}"#] {
            let event = decode(Pattern::UnreadCount, data).unwrap();
            assert_eq!((event.push, event.unread_count.as_deref()), (None, Some("3")));
        }
    }

    #[test]
    fn integers_are_read_like_everywhere() {
        use crate::wire::integer::CASES;

        // The broker's reader rejects the whole body if a number is out of range.
        for (json, integer) in CASES.into_iter().filter(|(json, _)| !json.starts_with('"')) {
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
            (Pattern::UnreadCount, r#"{"userId":"ada","count":"7"}"#),
            (Pattern::UnreadCount, r#"{"userId":"ada","unreadCount":-1}"#),
            (Pattern::Create, r#"["ada"]"#),
            (Pattern::Create, "null"),
        ] {
            assert!(decode(pattern, data).is_err(), "{data}");
        }
        // A null is an absent count.
        let event = decode(Pattern::Create, r#"{"userId":"ada","unreadCount":null}"#).unwrap();
        assert_eq!(event.unread_count, None);
    }

    #[test]
    fn odd_field_does_not_cost_the_notification() {
        for odd in [
            r#""unreadCount":"7""#,
            r#""unreadCount":-1"#,
            r#""unreadCount":7.5"#,
            r#""unreadCount":{"count":7}"#,
            r#""unreadCount":"\ud83d""#,
            r#""count":[],"surprise":{"\u00e4":1e999}"#,
            r#""createdAt":"yesterday","expiresAt":-1"#,
            r#""title":"cut off \ud83d","x":{"\ud83d":1}"#,
        ] {
            let data = format!(r#"{{"userId":"ada",{odd}}}"#);
            for (pattern, push) in [
                (Pattern::Create, new(&data)),
                (Pattern::MarkRead, ForwardedPush::MarkedRead(data.as_str().into())),
            ] {
                let event = decode(pattern, &data).unwrap_or_else(|error| panic!("{odd}: {error}"));
                assert_eq!((event.push.as_ref(), event.unread_count.as_ref()), (Some(&push), None));
                let encoded = encode_forwarded(&event).unwrap();
                assert_eq!(decode_forwarded(&encoded).unwrap(), event, "{odd}");
            }
        }
    }

    #[test]
    fn forwarded_event_is_the_same_after_encoding_and_decoding() {
        let json: Arc<str> = r#"{"id":1.50,  "a":"\u00e4"}"#.into();
        for push in
            [None, Some(ForwardedPush::New(json.clone())), Some(ForwardedPush::MarkedRead(json))]
        {
            for unread_count in [None, Some("7".into())] {
                let event = ForwardedEvent { user: user("ada"), push: push.clone(), unread_count };
                let body = encode_forwarded(&event).unwrap();
                assert_eq!(decode_forwarded(&body).unwrap(), event);
                let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(json["pattern"], "belfry.passed");
                assert!(json.get("id").is_none(), "NestJS would treat it as a request");
            }
        }
        assert!(decode_forwarded(b"{}").is_err());
        assert!(
            decode_forwarded(br#"{"pattern":"belfry.passed","data":{"userId":"a b"}}"#).is_err()
        );
    }
}
