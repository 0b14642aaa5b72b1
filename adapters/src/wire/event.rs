use belfry_domain::{Change, DomainEvent, Epoch, NotificationId, Revision, UnreadCount, UserId};
use serde::{Deserialize, Serialize};

use super::integer::unsigned;
use super::invalid_event::InvalidEvent;
use super::{NotificationForm, Rfc3339};

/// An event in JSON, `{"pattern":"notification.created","data":{…}}`, as stored in the outbox and
/// published to the events exchange. There must never be an `id` beside `pattern`: a NestJS listener
/// would treat the message as a request and try to reply.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "pattern", content = "data")]
pub enum EventForm<'a> {
    /// A notification was created.
    #[serde(rename = "notification.created", rename_all = "camelCase")]
    Created {
        /// The user of the inbox.
        user_id: String,
        /// The notification.
        #[serde(borrow)]
        notification: NotificationForm<'a>,
        /// Number of unread notifications after the change.
        #[serde(deserialize_with = "unsigned")]
        unread_count: u64,
        /// The revision of the inbox after the change.
        #[serde(deserialize_with = "unsigned")]
        revision: u64,
    },
    /// Some notifications were read.
    #[serde(rename = "notification.marked_read", rename_all = "camelCase")]
    MarkedRead {
        /// The user of the inbox.
        user_id: String,
        /// The notifications' ids.
        ids: Vec<String>,
        /// The id if there is exactly one. NestJS services usually mark one notification and expect this field.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notification_id: Option<String>,
        /// When they were read.
        read_at: Rfc3339,
        /// Number of unread notifications after the change.
        #[serde(deserialize_with = "unsigned")]
        unread_count: u64,
        /// The revision of the inbox after the change.
        #[serde(deserialize_with = "unsigned")]
        revision: u64,
    },
    /// All notifications were read.
    #[serde(rename = "notification.all_read", rename_all = "camelCase")]
    AllRead {
        /// The user of the inbox.
        user_id: String,
        /// When they were read.
        read_at: Rfc3339,
        /// Number of unread notifications after the change.
        #[serde(deserialize_with = "unsigned")]
        unread_count: u64,
        /// The revision of the inbox after the change.
        #[serde(deserialize_with = "unsigned")]
        revision: u64,
    },
    /// Some notifications were deleted.
    #[serde(rename = "notification.deleted", rename_all = "camelCase")]
    Deleted {
        /// The user of the inbox.
        user_id: String,
        /// The notifications' ids.
        ids: Vec<String>,
        /// The id if there is exactly one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notification_id: Option<String>,
        /// Number of unread notifications after the change.
        #[serde(deserialize_with = "unsigned")]
        unread_count: u64,
        /// The revision of the inbox after the change.
        #[serde(deserialize_with = "unsigned")]
        revision: u64,
    },
    /// The whole inbox was erased.
    #[serde(rename = "notification.all_erased", rename_all = "camelCase")]
    Erased {
        /// The user of the inbox.
        user_id: String,
        /// The store that the revisions belong to.
        epoch: String,
        /// Always 0.
        #[serde(deserialize_with = "unsigned")]
        unread_count: u64,
        /// Later than all revisions of the erased inbox.
        #[serde(deserialize_with = "unsigned")]
        revision: u64,
    },
}

impl<'a> From<&'a DomainEvent> for EventForm<'a> {
    fn from(event: &'a DomainEvent) -> Self {
        let user_id = event.user.as_str().to_owned();
        let unread_count = event.unread.get();
        let revision = event.revision.get();
        let texts = |ids: &[NotificationId]| ids.iter().map(ToString::to_string).collect();
        let only_id = |ids: &[NotificationId]| match ids {
            [id] => Some(id.to_string()),
            _ => None,
        };
        match &event.change {
            Change::Created(notification) => Self::Created {
                user_id,
                notification: NotificationForm::from(&**notification),
                unread_count,
                revision,
            },
            Change::MarkedRead { ids, read_at } => Self::MarkedRead {
                user_id,
                ids: texts(ids),
                notification_id: only_id(ids),
                read_at: Rfc3339(*read_at),
                unread_count,
                revision,
            },
            Change::AllRead { read_at } => {
                Self::AllRead { user_id, read_at: Rfc3339(*read_at), unread_count, revision }
            }
            Change::Deleted { ids } => Self::Deleted {
                user_id,
                ids: texts(ids),
                notification_id: only_id(ids),
                unread_count,
                revision,
            },
            Change::Erased { epoch } => {
                Self::Erased { user_id, epoch: epoch.as_str().to_owned(), unread_count, revision }
            }
        }
    }
}

impl EventForm<'_> {
    /// Writes an event as JSON.
    #[expect(clippy::missing_panics_doc, reason = "it never panics, see the expect")]
    pub fn write(event: &DomainEvent) -> String {
        serde_json::to_string(&EventForm::from(event))
            .expect("strings, numbers and checked JSON always serialize")
    }

    /// Reads the JSON that [`write`](Self::write) returns.
    pub fn read(json: &[u8]) -> Result<DomainEvent, InvalidEvent> {
        let ids = |texts: Vec<String>| {
            texts.iter().map(|text| NotificationId::parse(text)).collect::<Result<Vec<_>, _>>()
        };
        let (user_id, unread, revision, change) = match serde_json::from_slice(json)? {
            EventForm::Created { user_id, notification, unread_count, revision } => {
                let notification = Box::new(notification.read_as_created()?);
                (user_id, unread_count, revision, Change::Created(notification))
            }
            EventForm::MarkedRead {
                user_id, ids: texts, read_at, unread_count, revision, ..
            } => {
                let change = Change::MarkedRead { ids: ids(texts)?, read_at: read_at.0 };
                (user_id, unread_count, revision, change)
            }
            EventForm::AllRead { user_id, read_at, unread_count, revision } => {
                (user_id, unread_count, revision, Change::AllRead { read_at: read_at.0 })
            }
            EventForm::Deleted { user_id, ids: texts, unread_count, revision, .. } => {
                (user_id, unread_count, revision, Change::Deleted { ids: ids(texts)? })
            }
            EventForm::Erased { user_id, epoch, unread_count, revision } => {
                let epoch = Epoch::parse(&epoch)?;
                (user_id, unread_count, revision, Change::Erased { epoch })
            }
        };
        Ok(DomainEvent {
            user: UserId::parse(&user_id)?,
            revision: Revision::new(revision),
            unread: UnreadCount::new(unread),
            change,
        })
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::{a_draft, at, epoch, id, user};
    use belfry_domain::{Data, Draft};

    use super::*;

    fn events() -> Vec<DomainEvent> {
        let data = Data::from_valid_json(r#"{"a":[1,2.50,"\u00e4"]}"#).unwrap();
        let draft = Draft { data: Some(data), ..a_draft("ada", "n1") };
        [
            Change::Created(Box::new(draft.into_notification(Revision::new(7)))),
            Change::MarkedRead { ids: vec![id("n1"), id("n2")], read_at: at(1_234) },
            Change::MarkedRead { ids: vec![id("n1")], read_at: at(1_234) },
            Change::AllRead { read_at: at(1_234) },
            Change::Deleted { ids: vec![id("n1")] },
            Change::Erased { epoch: epoch("e1") },
        ]
        .map(|change| DomainEvent {
            user: user("ada"),
            revision: Revision::new(7),
            unread: UnreadCount::new(3),
            change,
        })
        .into()
    }

    #[test]
    fn read_event_equals_the_written_one() {
        for event in events() {
            assert_eq!(EventForm::read(EventForm::write(&event).as_bytes()).unwrap(), event);
        }
    }

    /// The bytes are a stored format: one version of Belfry may publish an event that another version wrote
    /// to the outbox. Consumers may also compare the bytes.
    #[test]
    fn event_is_written_in_exactly_this_form() {
        let written: Vec<_> = events().iter().map(EventForm::write).collect();
        assert_eq!(
            written,
            [
                concat!(
                    r#"{"pattern":"notification.created","data":{"userId":"ada","notification":"#,
                    r#"{"id":"n1","userId":"ada","type":"general","#,
                    r#""title":"Your order is on its way","message":"","#,
                    r#""data":{"a":[1,2.50,"\u00e4"]},"link":null,"priority":"normal","#,
                    r#""isRead":false,"readAt":null,"createdAt":"2023-11-14T22:13:20.000Z","#,
                    r#""expiresAt":null,"revision":7},"unreadCount":3,"revision":7}}"#,
                ),
                concat!(
                    r#"{"pattern":"notification.marked_read","data":{"userId":"ada","#,
                    r#""ids":["n1","n2"],"readAt":"1970-01-01T00:00:01.234Z","#,
                    r#""unreadCount":3,"revision":7}}"#,
                ),
                concat!(
                    r#"{"pattern":"notification.marked_read","data":{"userId":"ada","#,
                    r#""ids":["n1"],"notificationId":"n1","readAt":"1970-01-01T00:00:01.234Z","#,
                    r#""unreadCount":3,"revision":7}}"#,
                ),
                concat!(
                    r#"{"pattern":"notification.all_read","data":{"userId":"ada","#,
                    r#""readAt":"1970-01-01T00:00:01.234Z","unreadCount":3,"revision":7}}"#,
                ),
                concat!(
                    r#"{"pattern":"notification.deleted","data":{"userId":"ada","#,
                    r#""ids":["n1"],"notificationId":"n1","unreadCount":3,"revision":7}}"#,
                ),
                concat!(
                    r#"{"pattern":"notification.all_erased","data":{"userId":"ada","#,
                    r#""epoch":"e1","unreadCount":3,"revision":7}}"#,
                ),
            ]
        );
    }

    #[test]
    fn event_has_pattern_and_data_only() {
        for event in events() {
            let json: serde_json::Value = serde_json::from_str(&EventForm::write(&event)).unwrap();
            assert_eq!(json["pattern"], event.name());
            assert_eq!(json["data"]["userId"], "ada");
            assert_eq!(json.as_object().unwrap().len(), 2, "pattern and data, nothing else");
        }
    }

    #[test]
    fn numbers_are_read_as_in_all_other_inputs() {
        use crate::wire::integer::CASES;

        for (json, integer) in CASES {
            let event = format!(
                r#"{{"pattern":"notification.all_read","data":{{"userId":"ada","readAt":"{}","unreadCount":{json},"revision":{json}}}}}"#,
                Rfc3339(at(0))
            );
            let event = EventForm::read(event.as_bytes()).ok();
            let expected = integer.and_then(|it| u64::try_from(it).ok());
            assert_eq!(event.as_ref().map(|it| it.revision.get()), expected, "{json}");
            assert_eq!(event.map(|it| it.unread.get()), expected, "{json}");

            let erased = format!(
                r#"{{"pattern":"notification.all_erased","data":{{"userId":"ada","epoch":"e1","unreadCount":0,"revision":{json}}}}}"#
            );
            let event = EventForm::read(erased.as_bytes()).ok();
            assert_eq!(event.map(|it| it.revision.get()), expected, "{json}");
        }
    }

    #[test]
    fn invalid_event_is_rejected() {
        for raw in ["", "{}", r#"{"pattern":"notification.exploded","data":{}}"#, "[1]"] {
            assert!(EventForm::read(raw.as_bytes()).is_err(), "{raw}");
        }
    }
}
