//! Reads the payloads of devices' messages.

use belfry_application::ports::ListFilter;
use belfry_domain::{NotificationId, NotificationKind, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::reply::MessageError;
use crate::wire::socket::ClientMessage;
use crate::wire::{Cursor, Integer, TextOrNumber, page_limit};

/// The keys that the payload of a message can have.
const fn known_keys(message: ClientMessage) -> &'static [&'static str] {
    match message {
        ClientMessage::MarkRead | ClientMessage::Delete => &["id", "notificationId", "ids"],
        ClientMessage::List => {
            &["cursor", "limit", "unread", "unreadOnly", "type", "page", "offset"]
        }
        ClientMessage::Sync => &["since", "epoch"],
        ClientMessage::Refresh => &["token"],
        ClientMessage::MarkAllRead | ClientMessage::CountUnread => &[],
    }
}

/// Rejects a payload with a key that the message does not have: if the key were ignored, Belfry would not do what the
/// client requested.
///
/// Clients of other servers also send their user id, as `userId` or, in a message without keys, as the payload. Belfry
/// takes the user from the token, so the id of another user is an error.
pub(super) fn check_keys(
    payload: &Value,
    message: ClientMessage,
    user: &UserId,
) -> Result<(), MessageError> {
    let known = known_keys(message);
    // The id of the session's user, which is allowed and ignored.
    let is_user = |value: &Value| {
        TextOrNumber::deserialize(value).is_ok_and(|id| id.to_string() == user.as_str())
    };
    // The first unknown key; empty for a payload that is no object although the message has no keys.
    let unknown = match payload {
        Value::Null => None,
        Value::Object(fields) => {
            let is_known =
                |name: &str, value| known.contains(&name) || (name == "userId" && is_user(value));
            fields.iter().find(|(name, value)| !is_known(name, value)).map(|(name, _)| &**name)
        }
        other if known.is_empty() && !is_user(other) => Some(""),
        _ => None,
    };
    match (unknown, known) {
        (None, _) => Ok(()),
        (Some(_), []) => Err(MessageError::Invalid("expected no payload".to_owned())),
        (Some("userId"), _) => {
            Err(MessageError::Invalid("userId is not the user of the token".to_owned()))
        }
        (Some(name), known) => {
            // The client's key may be long, and the error repeats it.
            let name: String = name.chars().take(64).collect();
            let known = known.join(", ");
            Err(MessageError::Invalid(format!("unknown key {name:?}; the keys are {known}")))
        }
    }
}

/// The maximum number of ids in one message.
const MAX_IDS: usize = 1_000;

/// Reads `{id}`, `{notificationId}`, `{ids}`, a bare id or a list of ids: existing clients send all of these.
pub(super) fn ids(payload: Value) -> Result<Vec<NotificationId>, MessageError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum IdsForm {
        Id {
            id: TextOrNumber,
        },
        #[serde(rename_all = "camelCase")]
        NotificationId {
            notification_id: TextOrNumber,
        },
        Ids {
            ids: Vec<TextOrNumber>,
        },
        Bare(TextOrNumber),
        BareList(Vec<TextOrNumber>),
    }
    let id_keys = ["id", "notificationId", "ids"];
    if id_keys.into_iter().filter(|key| payload.get(key).is_some()).count() > 1 {
        return Err(MessageError::Invalid(
            "expected only one of id, notificationId, ids".to_owned(),
        ));
    }
    let form = serde_json::from_value(payload).map_err(|_| {
        MessageError::Invalid("expected {id}, {notificationId}, {ids} or a bare id".to_owned())
    })?;
    let raw = match form {
        IdsForm::Id { id }
        | IdsForm::NotificationId { notification_id: id }
        | IdsForm::Bare(id) => vec![id],
        IdsForm::Ids { ids } | IdsForm::BareList(ids) => ids,
    };
    if raw.len() > MAX_IDS {
        return Err(MessageError::Invalid(format!("at most {MAX_IDS} ids at once")));
    }
    raw.iter()
        .map(|raw| NotificationId::parse(&raw.to_string()))
        .collect::<Result<_, _>>()
        .map_err(|error| MessageError::Invalid(error.to_string()))
}

/// Reads a payload in the same forms, which must have exactly one id.
pub(super) fn one_id(payload: Value) -> Result<NotificationId, MessageError> {
    let mut ids = ids(payload)?;
    match (ids.pop(), ids.is_empty()) {
        (Some(id), true) => Ok(id),
        _ => Err(MessageError::Invalid("expected exactly one id".to_owned())),
    }
}

/// Whether a client may request a page by its number or offset, as with some other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageNumbers {
    /// Every page number or offset is an error.
    Refused,
    /// `page: 1` and `offset: 0` request the first page. Other numbers are errors, because pages are found by their
    /// cursor.
    FirstPage,
}

/// Reads the payload of a list request: which notifications, and how many at most. Missing fields have defaults.
pub(super) fn requested_page(
    payload: Value,
    numbers: PageNumbers,
) -> Result<(ListFilter, usize), MessageError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Requested {
        page: Option<Integer>,
        offset: Option<Integer>,
        unread_only: Option<bool>,
        cursor: Option<String>,
        limit: Option<Integer>,
        unread: Option<bool>,
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let page = match payload {
        Value::Null => Requested::default(),
        other => serde_json::from_value(other).map_err(|error| {
            MessageError::Invalid(format!(
                "expected {{cursor?, limit?, unread?, unreadOnly?, type?}}: {error}"
            ))
        })?,
    };
    let invalid = |error: &dyn std::fmt::Display| MessageError::Invalid(error.to_string());
    let is_absent_or = |number: Option<Integer>, first: u64| {
        number.is_none_or(|number| number.to::<u64>() == Some(first))
    };
    let is_first = is_absent_or(page.page, 1) && is_absent_or(page.offset, 0);
    let is_numbered = page.page.is_some() || page.offset.is_some();
    if is_numbered && (numbers == PageNumbers::Refused || !is_first) {
        return Err(invalid(
            &"pages are not numbered: request the next page with cursor, the nextCursor of the previous one",
        ));
    }
    // `unread: false` requests read notifications, `unreadOnly: false` requests all.
    let unread = match (page.unread, page.unread_only) {
        (unread, None) => unread,
        (None, Some(only)) => only.then_some(true),
        _ => return Err(invalid(&"expected either unread or unreadOnly")),
    };
    let before =
        page.cursor.as_deref().map(Cursor::parse).transpose().map_err(|it| invalid(&it))?;
    let kind =
        page.kind.as_deref().map(NotificationKind::parse).transpose().map_err(|it| invalid(&it))?;
    let filter = ListFilter { before: before.map(|cursor| cursor.0), unread, kind };
    Ok((filter, page_limit(page.limit).map_err(|it| invalid(&it))?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::credentials::resume_point;
    use super::*;
    use crate::wire::integer::{CASES, NOT_INTEGERS};

    fn read(payload: Value) -> Result<Vec<String>, String> {
        let texts = |ids: Vec<NotificationId>| ids.iter().map(ToString::to_string).collect();
        ids(payload).map(texts).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_are_read_in_every_form_that_clients_use() {
        for payload in [
            json!({ "id": "7" }),
            json!({ "id": 7 }),
            json!({ "notificationId": "7" }),
            json!({ "ids": ["7"] }),
            json!("7"),
            json!(7),
            json!(["7"]),
        ] {
            assert_eq!(read(payload.clone()), Ok(vec!["7".to_owned()]), "{payload}");
        }
    }

    #[test]
    fn integers_are_read_as_in_all_other_inputs() {
        for (json, integer) in CASES {
            let Ok(value) = serde_json::from_str::<Value>(json) else {
                assert_eq!(integer, None, "{json}");
                continue;
            };
            let page = page(json!({ "limit": value }));
            let in_range = integer.filter(|limit| (1..=100).contains(limit));
            let limit = page.map(|(_, limit)| limit).ok();
            assert_eq!(limit, in_range.map(|limit| limit.try_into().unwrap()), "{json}");
            let since = resume_point(&json!({ "since": value })).map(|point| point.since.get());
            assert_eq!(since, integer.and_then(|since| since.try_into().ok()), "{json}");
            if !value.is_string() && !value.is_array() {
                let id = integer.map(|id| vec![id.to_string()]);
                assert_eq!(read(json!({ "id": value })).ok(), id, "{json}");
                assert_eq!(read(json!({ "ids": [value] })).ok(), id, "{json}");
            }
        }
        for text in NOT_INTEGERS {
            assert_eq!(resume_point(&json!({ "since": text })), None, "{text:?}");
        }
    }

    #[test]
    fn payload_without_a_valid_id_is_rejected() {
        for payload in
            [json!(null), json!({}), json!({ "id": {} }), json!(true), json!({ "id": "" })]
        {
            assert!(read(payload.clone()).is_err(), "{payload}");
        }
        assert!(read(json!(vec![1; MAX_IDS + 1])).unwrap_err().contains("at most"));
    }

    fn page(payload: Value) -> Result<(ListFilter, usize), MessageError> {
        requested_page(payload, PageNumbers::Refused)
    }

    #[test]
    fn several_kinds_of_ids_are_rejected() {
        assert!(read(json!({ "id": "7", "ids": ["8"] })).unwrap_err().contains("only one of"));
    }

    #[test]
    fn unknown_key_is_rejected_and_the_known_ones_are_named() {
        let ada = UserId::parse("ada").unwrap();
        let check = |payload, message| {
            check_keys(&payload, message, &ada).map_err(|error| error.to_string())
        };
        for (payload, message) in [
            (json!({ "notificationId": 7, "userId": "ada" }), ClientMessage::MarkRead),
            (json!(7), ClientMessage::MarkRead),
            (json!(null), ClientMessage::MarkAllRead),
            (json!({}), ClientMessage::CountUnread),
            (json!("ada"), ClientMessage::MarkAllRead),
            (json!({ "since": 0, "epoch": null }), ClientMessage::Sync),
            (json!({ "unreadOnly": true }), ClientMessage::List),
        ] {
            assert_eq!(check(payload.clone(), message), Ok(()), "{payload}");
        }
        let number = UserId::parse("42").unwrap();
        for user in [json!(42), json!(42.0), json!("42")] {
            assert!(check_keys(&user, ClientMessage::MarkAllRead, &number).is_ok(), "{user}");
        }
        for (payload, message, expected) in [
            (json!({ "id": 7, "x": 1 }), ClientMessage::Delete, "the keys are id, notificationId"),
            (json!({ "since": 0, "page": 1 }), ClientMessage::Sync, "the keys are since, epoch"),
            (json!({ "pageSize": 5 }), ClientMessage::List, "unknown key \"pageSize\""),
            (json!({ "id": 7, "userId": "bob" }), ClientMessage::MarkRead, "not the user of"),
            (json!({ "type": "a" }), ClientMessage::MarkAllRead, "expected no payload"),
            (json!("n1"), ClientMessage::MarkAllRead, "expected no payload"),
        ] {
            let problem = check(payload.clone(), message).unwrap_err();
            assert!(problem.contains(expected), "{payload}: {problem}");
        }
    }

    #[test]
    fn numbered_page_is_served_only_if_it_is_the_first_and_allowed() {
        let first = [json!({ "page": 1.0, "limit": 5 }), json!({ "offset": 0 })];
        for payload in first {
            assert!(page(payload.clone()).is_err(), "{payload}");
            assert!(requested_page(payload.clone(), PageNumbers::FirstPage).is_ok(), "{payload}");
        }
        for payload in [json!({ "page": 2 }), json!({ "page": 0 }), json!({ "offset": 20 })] {
            let refused = requested_page(payload.clone(), PageNumbers::FirstPage).unwrap_err();
            assert!(refused.to_string().contains("nextCursor"), "{payload}: {refused}");
        }
    }

    #[test]
    fn unread_only_is_unread_or_all() {
        let unread = |payload| page(payload).map(|(filter, _)| filter.unread).ok();
        assert_eq!(unread(json!({ "unreadOnly": true })), Some(Some(true)));
        assert_eq!(unread(json!({ "unreadOnly": false })), Some(None));
        assert_eq!(unread(json!({ "unreadOnly": false, "unread": true })), None);
    }

    #[test]
    fn page_is_requested_with_defaults_for_missing_fields() {
        let (filter, limit) = requested_page(Value::Null, PageNumbers::Refused).unwrap();
        assert_eq!((filter, limit), (ListFilter::default(), 20));
        let (filter, limit) = page(json!({ "limit": 5, "unread": true })).unwrap();
        assert_eq!((filter.unread, limit), (Some(true), 5));
        for payload in [
            json!({ "cursor": "%" }),
            json!({ "limit": -1 }),
            json!({ "limit": 101 }),
            json!("x"),
            json!({"type": ""}),
        ] {
            assert!(page(payload.clone()).is_err(), "{payload}");
        }
    }
}
