use std::borrow::Cow;
use std::sync::Arc;

use belfry_application::push::ForwardedPush;
use belfry_application::use_cases::ForwardedEvent;
use belfry_domain::UserId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::command::{borrowed, is_object, recipient, user};
use super::message::{Envelope, Pattern, Unreadable};
use crate::wire::TextOrNumber;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said<'a> {
    user_id: Option<TextOrNumber>,
    #[serde(borrow)]
    notification: Option<&'a RawValue>,
    #[serde(borrow)]
    unread_count: Option<&'a RawValue>,
    #[serde(borrow)]
    count: Option<&'a RawValue>,
}

/// What the message says to a user's devices, as it came.
pub(super) fn forwarded(envelope: &Envelope<'_>) -> Result<ForwardedEvent, Unreadable> {
    let data = envelope.data;
    let Said { user_id, notification, unread_count, count } = borrowed(data)?;
    let inner = notification.filter(|inner| is_object(inner)).unwrap_or(data);
    let user_id = match user_id {
        None => recipient(inner)?,
        some => some,
    };
    let unread_count = match envelope.pattern {
        Pattern::UnreadCount => {
            Some(unread_count.or(count).ok_or_else(|| Unreadable::field("count", "is missing"))?)
        }
        _ => unread_count,
    };
    let push = match envelope.pattern {
        Pattern::Create => Some(ForwardedPush::New(shared(inner))),
        Pattern::MarkRead | Pattern::MarkAllRead => Some(ForwardedPush::MarkedRead(shared(data))),
        Pattern::UnreadCount => None,
        Pattern::RevokeTokens => {
            return Err(Unreadable::UnknownPattern("user.revoke_tokens".to_owned()));
        }
    };
    Ok(ForwardedEvent {
        user: user(user_id)?,
        push,
        unread_count: unread_count.map(number).transpose()?,
    })
}

fn raw(json: Option<&Arc<str>>) -> Result<Option<&RawValue>, serde_json::Error> {
    json.map(|json| serde_json::from_str(json)).transpose()
}

fn number(raw: &RawValue) -> Result<Arc<str>, Unreadable> {
    match serde_json::from_str::<u64>(raw.get()) {
        Ok(_) => Ok(shared(raw)),
        Err(_) => Err(Unreadable::field("unreadCount", "must be a whole number")),
    }
}

fn shared(raw: &RawValue) -> Arc<str> {
    raw.get().into()
}

/// A forwarded event on its way to all nodes: `{"pattern":"belfry.passed","data":{…}}`.
#[derive(Debug, Serialize, Deserialize)]
struct PassedEvent<'a> {
    #[serde(borrow)]
    pattern: Cow<'a, str>,
    #[serde(borrow)]
    data: PassedForm<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PassedForm<'a> {
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
pub(super) type InvalidPassed = Box<dyn std::error::Error + Send + Sync>;

/// Writes a forwarded event for the queues of all nodes. What it carries stays as it is.
pub(super) fn write_passed(event: &ForwardedEvent) -> Result<Vec<u8>, serde_json::Error> {
    let (new, marked_read, count) = match &event.push {
        Some(ForwardedPush::New(json)) => (Some(json), None, None),
        Some(ForwardedPush::MarkedRead(json)) => (None, Some(json), None),
        Some(ForwardedPush::UnreadCount(json)) => (None, None, Some(json)),
        None => (None, None, None),
    };
    let data = PassedForm {
        user_id: event.user.as_str().into(),
        new: raw(new)?,
        marked_read: raw(marked_read)?,
        unread_count: raw(event.unread_count.as_ref().or(count))?,
    };
    serde_json::to_vec(&PassedEvent { pattern: crate::amqp::Topology::PASSED.into(), data })
}

/// Reads what [`write_passed`] wrote.
pub(super) fn read_passed(body: &[u8]) -> Result<ForwardedEvent, InvalidPassed> {
    let PassedEvent { data, .. } = serde_json::from_slice(body)?;
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

    fn envelope(pattern: Pattern, data: &str) -> Result<ForwardedEvent, Unreadable> {
        let data = serde_json::from_str(data).unwrap();
        forwarded(&Envelope { pattern, data, named: None, trace: None })
    }

    fn new(json: &str) -> ForwardedPush {
        ForwardedPush::New(json.into())
    }

    #[test]
    fn a_notification_goes_out_byte_for_byte() {
        let inner = r#"{"id":1.50,  "a":"\u00e4","z":{"y":[ ]}}"#;
        let wrapped = format!(r#"{{"userId":"ada","notification":{inner},"unreadCount":7}}"#);
        let event = envelope(Pattern::Create, &wrapped).unwrap();
        assert_eq!(event.user, user("ada"));
        assert_eq!(event.push, Some(new(inner)));
        assert_eq!(event.unread_count.as_deref(), Some("7"));

        let flat = r#"{"userId":42,"title":"Hi" }"#;
        let event = envelope(Pattern::Create, flat).unwrap();
        assert_eq!((event.user, event.push), (user("42"), Some(new(flat))));
        assert_eq!(event.unread_count, None);
    }

    #[test]
    fn a_notification_is_copied_once_however_much_is_in_it() {
        let read = |fields: u32| {
            let fields: Vec<_> =
                (0..fields).map(|n| format!(r#""f{n}":{{"a":["{n}"]}}"#)).collect();
            let inner = fields.join(",");
            let data = format!(r#"{{"userId":"ada","notification":{{{inner}}},"unreadCount":7}}"#);
            let read = allocation_counter::measure(|| {
                envelope(Pattern::Create, &data).unwrap();
            });
            (read.count_total, read.bytes_total, data.len() as u64)
        };
        let (few, many) = (read(1), read(1_000));
        assert!(few.0 > 0);
        assert_eq!(few.0, many.0);
        // What is shared is counted beside it, and both are aligned.
        assert!(many.1 - few.1 < many.2 - few.2 + 8, "{few:?} {many:?}");
    }

    #[test]
    fn the_recipient_may_stand_in_the_notification() {
        let event = envelope(Pattern::Create, r#"{"notification":{"userId":"ada"}}"#).unwrap();
        assert_eq!(event.user, user("ada"));
    }

    #[test]
    fn what_was_read_goes_out_as_it_came() {
        let data = r#"{"userId":"ada","notificationId":null,"all":true,"unreadCount":0}"#;
        for pattern in [Pattern::MarkRead, Pattern::MarkAllRead] {
            let event = envelope(pattern, data).unwrap();
            assert_eq!(event.push, Some(ForwardedPush::MarkedRead(data.into())));
            assert_eq!(event.unread_count.as_deref(), Some("0"));
        }
    }

    #[test]
    fn a_count_may_come_alone() {
        for data in [r#"{"userId":"ada","count":3}"#, r#"{"userId":"ada","unreadCount":3}"#] {
            let event = envelope(Pattern::UnreadCount, data).unwrap();
            assert_eq!((event.push, event.unread_count.as_deref()), (None, Some("3")));
        }
    }

    #[test]
    fn what_names_nobody_or_counts_nothing_is_refused() {
        for (pattern, data) in [
            (Pattern::Create, r#"{"notification":{"title":"Hi"}}"#),
            (Pattern::Create, r#"{"userId":"a b"}"#),
            (Pattern::Create, r#"{"userId":["ada"]}"#),
            (Pattern::Create, r#"{"userId":"ada","unreadCount":"7"}"#),
            (Pattern::Create, r#"{"userId":"ada","unreadCount":-1}"#),
            (Pattern::Create, r#"{"userId":"ada","unreadCount":{"count":7}}"#),
            (Pattern::UnreadCount, r#"{"userId":"ada"}"#),
            (Pattern::Create, r#"["ada"]"#),
            (Pattern::Create, "null"),
        ] {
            assert!(envelope(pattern, data).is_err(), "{data}");
        }
        let absent = envelope(Pattern::Create, r#"{"userId":"ada","unreadCount":null}"#).unwrap();
        assert_eq!(absent.unread_count, None);
    }

    #[test]
    fn what_is_passed_to_all_nodes_arrives_unchanged() {
        let json: Arc<str> = r#"{"id":1.50,  "a":"\u00e4"}"#.into();
        for push in
            [None, Some(ForwardedPush::New(json.clone())), Some(ForwardedPush::MarkedRead(json))]
        {
            for unread_count in [None, Some("7".into())] {
                let event = ForwardedEvent { user: user("ada"), push: push.clone(), unread_count };
                let body = write_passed(&event).unwrap();
                assert_eq!(read_passed(&body).unwrap(), event);
                let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(json["pattern"], "belfry.passed");
                assert!(json.get("id").is_none(), "NestJS would take it for a request");
            }
        }
        assert!(read_passed(b"{}").is_err());
        assert!(read_passed(br#"{"pattern":"belfry.passed","data":{"userId":"a b"}}"#).is_err());
    }
}
