//! Reads the payloads of devices' messages.

use belfry_application::ports::ListFilter;
use belfry_domain::{NotificationId, NotificationKind};
use serde::Deserialize;
use serde_json::Value;

use super::reply::MessageError;
use crate::wire::{Cursor, Integer, TextOrNumber, page_limit};

/// How many notifications one message may mark.
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

pub(super) fn one_id(payload: Value) -> Result<NotificationId, MessageError> {
    let mut ids = ids(payload)?;
    match (ids.pop(), ids.is_empty()) {
        (Some(id), true) => Ok(id),
        _ => Err(MessageError::Invalid("expected exactly one id".to_owned())),
    }
}

pub(super) fn requested_page(payload: Value) -> Result<(ListFilter, usize), MessageError> {
    #[derive(Default, Deserialize)]
    struct Page {
        cursor: Option<String>,
        limit: Option<Integer>,
        unread: Option<bool>,
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let page = match payload {
        Value::Null => Page::default(),
        other => serde_json::from_value(other).map_err(|error| {
            MessageError::Invalid(format!("expected {{cursor?, limit?, unread?, type?}}: {error}"))
        })?,
    };
    let invalid = |error: &dyn std::fmt::Display| MessageError::Invalid(error.to_string());
    let before =
        page.cursor.as_deref().map(Cursor::parse).transpose().map_err(|it| invalid(&it))?;
    let kind =
        page.kind.as_deref().map(NotificationKind::parse).transpose().map_err(|it| invalid(&it))?;
    let filter = ListFilter { before: before.map(|cursor| cursor.0), unread: page.unread, kind };
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
    fn integers_are_read_like_everywhere() {
        for (json, integer) in CASES {
            let Ok(value) = serde_json::from_str::<Value>(json) else {
                assert_eq!(integer, None, "{json}");
                continue;
            };
            let page = requested_page(json!({ "limit": value }));
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

    #[test]
    fn page_is_requested_with_defaults_for_missing_fields() {
        let (filter, limit) = requested_page(Value::Null).unwrap();
        assert_eq!((filter, limit), (ListFilter::default(), 20));
        let (filter, limit) = requested_page(json!({ "limit": 5, "unread": true })).unwrap();
        assert_eq!((filter.unread, limit), (Some(true), 5));
        for payload in [
            json!({ "cursor": "%" }),
            json!({ "limit": -1 }),
            json!({ "limit": 101 }),
            json!("x"),
            json!({"type": ""}),
        ] {
            assert!(requested_page(payload.clone()).is_err(), "{payload}");
        }
    }
}
