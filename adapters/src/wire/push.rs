use std::borrow::Cow;

use belfry_application::push::{ForwardedPush, Push, Selection, SyncState};
use belfry_domain::{NotificationId, UnreadCount};
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::socket::{EventShape, NamedEvent};
use super::{NotificationForm, Rfc3339};

/// A push as a Socket.IO event, encoded once for all devices.
#[derive(Debug)]
pub struct PushForm {
    /// Belfry's name of the event.
    pub event: Cow<'static, str>,
    /// The event, if its name and shape can be configured.
    pub(crate) named: Option<NamedEvent>,
    /// The event's only argument, as JSON.
    pub payload: Box<RawValue>,
}

/// The payload of `notification:sync`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncForm<'a> {
    epoch: &'a str,
    revision: u64,
    /// Absent if another service keeps the inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_count: Option<u64>,
    recovered: bool,
    missed: usize,
}

impl<'a> From<&'a SyncState> for SyncForm<'a> {
    fn from(sync: &'a SyncState) -> Self {
        Self {
            epoch: sync.epoch.as_str(),
            revision: sync.revision.get(),
            unread_count: sync.unread.map(UnreadCount::get),
            recovered: sync.recovered,
            missed: sync.missed,
        }
    }
}

/// The payload of `notification:unread_count`. [`PushForm::shaped`] relies on the count being the first field.
#[derive(Debug, Serialize)]
struct CountForm {
    count: u64,
    revision: u64,
}

/// The payload of `notification:marked_read`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MarkedReadForm<'a> {
    #[serde(flatten)]
    selection: SelectionForm<'a>,
    read_at: Rfc3339,
    revision: u64,
}

/// The payload of `notification:deleted`.
#[derive(Debug, Serialize)]
struct DeletedForm<'a> {
    #[serde(flatten)]
    ids: IdsForm<'a>,
    revision: u64,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum SelectionForm<'a> {
    All { all: bool },
    Ids(IdsForm<'a>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IdsForm<'a> {
    ids: Vec<&'a str>,
    /// The id if there is exactly one. Clients of NestJS gateways usually expect this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_id: Option<&'a str>,
}

impl<'a> From<&'a Selection> for SelectionForm<'a> {
    fn from(selection: &'a Selection) -> Self {
        match selection {
            Selection::All => Self::All { all: true },
            Selection::Ids(ids) => Self::Ids(ids[..].into()),
        }
    }
}

impl<'a> From<&'a [NotificationId]> for IdsForm<'a> {
    fn from(ids: &'a [NotificationId]) -> Self {
        let ids: Vec<_> = ids.iter().map(NotificationId::as_str).collect();
        let notification_id = if let [only] = ids[..] { Some(only) } else { None };
        Self { ids, notification_id }
    }
}

impl PushForm {
    /// The payload in that shape, as three texts to concatenate, so that the payload need not be copied.
    pub(crate) fn shaped(&self, shape: EventShape) -> [&str; 3] {
        const COUNT: &str = "{\"count\":";
        let payload = self.payload.get();
        match shape {
            EventShape::Bare | EventShape::Count => ["", payload, ""],
            EventShape::Notification => ["{\"notification\":", payload, "}"],
            EventShape::Data => ["{\"data\":", payload, "}"],
            EventShape::UnreadCount => match payload.strip_prefix(COUNT) {
                Some(after_name) => ["{\"unreadCount\":", after_name, ""],
                None => ["", payload, ""],
            },
            EventShape::Number => {
                let after_name = payload.strip_prefix(COUNT);
                let number = after_name.and_then(|text| text.split([',', '}']).next());
                ["", number.unwrap_or(payload), ""]
            }
        }
    }
}

impl From<&Push> for PushForm {
    fn from(push: &Push) -> Self {
        match push {
            Push::New(notification) => {
                encode_named(NamedEvent::New, &NotificationForm::from(&**notification))
            }
            Push::UnreadCount { count, revision } => encode_named(
                NamedEvent::UnreadCount,
                &CountForm { count: count.get(), revision: revision.get() },
            ),
            Push::MarkedRead { selection, read_at, revision } => encode_named(
                NamedEvent::MarkedRead,
                &MarkedReadForm {
                    selection: selection.into(),
                    read_at: Rfc3339(*read_at),
                    revision: revision.get(),
                },
            ),
            Push::Deleted { ids, revision } => encode_named(
                NamedEvent::Deleted,
                &DeletedForm { ids: ids[..].into(), revision: revision.get() },
            ),
            Push::Sync(sync) => encode("notification:sync", &SyncForm::from(sync)),
            Push::Expiring { expires_at } => {
                encode("auth:expiring", &json!({ "expiresAt": Rfc3339(*expires_at) }))
            }
            Push::Exception { code, message } => {
                encode("exception", &json!({ "status": "error", "code": code, "message": message }))
            }
            Push::Forwarded(ForwardedPush::New(json)) => forwarded(NamedEvent::New, json),
            Push::Forwarded(ForwardedPush::UnreadCount(count)) => {
                forwarded(NamedEvent::UnreadCount, &format!("{{\"count\":{count}}}"))
            }
            Push::Forwarded(ForwardedPush::MarkedRead(json)) => {
                forwarded(NamedEvent::MarkedRead, json)
            }
            Push::Forwarded(ForwardedPush::Deleted(json)) => forwarded(NamedEvent::Deleted, json),
            Push::Forwarded(ForwardedPush::Custom { event, data }) => {
                PushForm { event: Cow::Owned(event.to_string()), named: None, payload: raw(data) }
            }
        }
    }
}

fn encode(event: &'static str, payload: &impl Serialize) -> PushForm {
    let payload = to_raw_value(payload).expect("strings, numbers and checked JSON serialize");
    PushForm { event: event.into(), named: None, payload }
}

fn encode_named(event: NamedEvent, payload: &impl Serialize) -> PushForm {
    PushForm { named: Some(event), ..encode(event.name(), payload) }
}

fn forwarded(event: NamedEvent, json: &str) -> PushForm {
    PushForm { event: event.name().into(), named: Some(event), payload: raw(json) }
}

/// JSON of another service. It was validated when it was received. Should it be invalid nevertheless, null replaces it so
/// that the packet stays valid.
fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use belfry_application::testing::{a_draft, at, epoch, id};
    use belfry_domain::Revision;

    use super::*;

    fn name_and_payload(push: &Push) -> (String, serde_json::Value) {
        let form = PushForm::from(push);
        (form.event.into_owned(), serde_json::from_str(form.payload.get()).unwrap())
    }

    #[test]
    fn each_push_has_its_documented_form() {
        let revision = Revision::new(17);
        let (event, new) = name_and_payload(&Push::New(Arc::new(
            a_draft("ada", "n1").into_notification(revision),
        )));
        assert_eq!(event, "notification:new");
        let expected = json!({
            "id": "n1", "userId": "ada", "type": "general",
            "title": "Your order is on its way", "message": "", "data": null, "link": null,
            "priority": "normal", "isRead": false, "readAt": null,
            "createdAt": "2023-11-14T22:13:20.000Z", "expiresAt": null, "revision": 17,
        });
        assert_eq!(new, expected);

        let count = UnreadCount::new(3);
        let read_at = at(0);
        for (push, event, payload) in [
            (
                Push::UnreadCount { count, revision },
                "notification:unread_count",
                json!({ "count": 3, "revision": 17 }),
            ),
            (
                Push::MarkedRead { selection: Selection::Ids(vec![id("n1")]), read_at, revision },
                "notification:marked_read",
                json!({ "ids": ["n1"], "notificationId": "n1",
                    "readAt": "1970-01-01T00:00:00.000Z", "revision": 17 }),
            ),
            (
                Push::MarkedRead {
                    selection: Selection::Ids(vec![id("n1"), id("n2")]),
                    read_at,
                    revision,
                },
                "notification:marked_read",
                json!({ "ids": ["n1", "n2"],
                    "readAt": "1970-01-01T00:00:00.000Z", "revision": 17 }),
            ),
            (
                Push::MarkedRead { selection: Selection::All, read_at, revision },
                "notification:marked_read",
                json!({ "all": true, "readAt": "1970-01-01T00:00:00.000Z", "revision": 17 }),
            ),
            (
                Push::Deleted { ids: vec![id("n1")], revision },
                "notification:deleted",
                json!({ "ids": ["n1"], "notificationId": "n1", "revision": 17 }),
            ),
            (
                Push::Sync(SyncState {
                    epoch: epoch("e1"),
                    revision,
                    unread: Some(count),
                    recovered: true,
                    missed: 2,
                }),
                "notification:sync",
                json!({ "epoch": "e1", "revision": 17, "unreadCount": 3, "recovered": true, "missed": 2 }),
            ),
            (
                Push::Sync(SyncState {
                    epoch: epoch("e1"),
                    revision: Revision::ZERO,
                    unread: None,
                    recovered: false,
                    missed: 0,
                }),
                "notification:sync",
                json!({ "epoch": "e1", "revision": 0, "recovered": false, "missed": 0 }),
            ),
            (
                Push::Expiring { expires_at: at(0) },
                "auth:expiring",
                json!({ "expiresAt": "1970-01-01T00:00:00.000Z" }),
            ),
            (
                Push::Exception { code: "token_expired", message: "over".into() },
                "exception",
                json!({ "status": "error", "code": "token_expired", "message": "over" }),
            ),
        ] {
            assert_eq!(name_and_payload(&push), (event.to_owned(), payload));
        }
    }

    #[test]
    fn payload_is_wrapped_or_reduced_according_to_its_shape() {
        let stored = Push::UnreadCount { count: UnreadCount::new(3), revision: Revision::new(17) };
        let count = |text: &str| Push::Forwarded(ForwardedPush::UnreadCount(text.into()));
        let new = Push::Forwarded(ForwardedPush::New(r#"{"id":"n1"}"#.into()));
        for (push, shape, expected) in [
            (&new, EventShape::Bare, r#"{"id":"n1"}"#),
            (&new, EventShape::Notification, r#"{"notification":{"id":"n1"}}"#),
            (&new, EventShape::Data, r#"{"data":{"id":"n1"}}"#),
            (&stored, EventShape::Count, r#"{"count":3,"revision":17}"#),
            (&stored, EventShape::UnreadCount, r#"{"unreadCount":3,"revision":17}"#),
            (&stored, EventShape::Number, "3"),
            (&count("7"), EventShape::UnreadCount, r#"{"unreadCount":7}"#),
            (&count("7"), EventShape::Number, "7"),
        ] {
            assert_eq!(PushForm::from(push).shaped(shape).concat(), expected);
        }
    }

    #[test]
    fn forwarded_json_is_not_changed() {
        let json = r#"{"id":1.50,"a":{"b":[ ]}}"#;
        let form = PushForm::from(&Push::Forwarded(ForwardedPush::New(json.into())));
        assert_eq!(form.payload.get(), json);
        let (event, count) =
            name_and_payload(&Push::Forwarded(ForwardedPush::UnreadCount("7".into())));
        assert_eq!((&*event, count), ("notification:unread_count", json!({ "count": 7 })));
        let custom = ForwardedPush::Custom { event: "order:shipped".into(), data: json.into() };
        let form = PushForm::from(&Push::Forwarded(custom));
        assert_eq!((&*form.event, form.payload.get()), ("order:shipped", json));
    }
}
