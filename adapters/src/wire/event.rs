use belfry_domain::{
    Change, DomainEvent, InvalidData, InvalidId, InvalidLink, InvalidMessage,
    InvalidNotificationKind, InvalidPriority, InvalidTitle, InvalidUserId, NotificationId,
    Revision, UnreadCount, UserId,
};
use serde::{Deserialize, Serialize};

use super::{NotificationForm, Rfc3339};

/// An event in JSON, `{"pattern":"notification.created","data":{…}}`: what the outbox keeps and what
/// the events exchange carries. There is never an `id` beside `pattern`: a NestJS listener would
/// take it for a request and try to answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "pattern", content = "data")]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the way through")]
pub enum EventForm<'a> {
    /// An inbox took a notification.
    #[serde(rename = "notification.created", rename_all = "camelCase")]
    Created {
        /// Whose inbox.
        user_id: String,
        /// The notification.
        #[serde(borrow)]
        notification: NotificationForm<'a>,
        /// How many are unread now.
        unread_count: u64,
        /// Which change of the inbox this is.
        revision: u64,
    },
    /// Some were read.
    #[serde(rename = "notification.marked_read", rename_all = "camelCase")]
    MarkedRead {
        /// Whose inbox.
        user_id: String,
        /// Which ones.
        ids: Vec<String>,
        /// When.
        read_at: Rfc3339,
        /// How many are unread now.
        unread_count: u64,
        /// Which change of the inbox this is.
        revision: u64,
    },
    /// All were read.
    #[serde(rename = "notification.all_read", rename_all = "camelCase")]
    AllRead {
        /// Whose inbox.
        user_id: String,
        /// When.
        read_at: Rfc3339,
        /// How many are unread now.
        unread_count: u64,
        /// Which change of the inbox this is.
        revision: u64,
    },
    /// Some were deleted.
    #[serde(rename = "notification.deleted", rename_all = "camelCase")]
    Deleted {
        /// Whose inbox.
        user_id: String,
        /// Which ones.
        ids: Vec<String>,
        /// How many are unread now.
        unread_count: u64,
        /// Which change of the inbox this is.
        revision: u64,
    },
}

/// A text is not an event of ours.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the part that it names")]
pub enum InvalidEvent {
    #[error("not the JSON of an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    UserId(#[from] InvalidUserId),
    #[error(transparent)]
    Kind(#[from] InvalidNotificationKind),
    #[error(transparent)]
    Title(#[from] InvalidTitle),
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    #[error(transparent)]
    Data(#[from] InvalidData),
    #[error(transparent)]
    Link(#[from] InvalidLink),
    #[error(transparent)]
    Priority(#[from] InvalidPriority),
}

impl<'a> From<&'a DomainEvent> for EventForm<'a> {
    fn from(event: &'a DomainEvent) -> Self {
        let user_id = event.user.as_str().to_owned();
        let unread_count = event.unread.get();
        let revision = event.revision.get();
        let texts = |ids: &[NotificationId]| ids.iter().map(ToString::to_string).collect();
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
                read_at: Rfc3339(*read_at),
                unread_count,
                revision,
            },
            Change::AllRead { read_at } => {
                Self::AllRead { user_id, read_at: Rfc3339(*read_at), unread_count, revision }
            }
            Change::Deleted { ids } => {
                Self::Deleted { user_id, ids: texts(ids), unread_count, revision }
            }
        }
    }
}

impl EventForm<'_> {
    /// The event's JSON.
    #[expect(clippy::missing_panics_doc, reason = "it never does, as said where it could")]
    pub fn write(event: &DomainEvent) -> String {
        serde_json::to_string(&EventForm::from(event))
            .expect("strings, numbers and checked JSON always serialize")
    }

    /// Reads an event's JSON, as [`write`](Self::write) makes it.
    pub fn read(json: &[u8]) -> Result<DomainEvent, InvalidEvent> {
        let ids = |texts: Vec<String>| {
            texts.iter().map(|text| NotificationId::parse(text)).collect::<Result<Vec<_>, _>>()
        };
        let (user_id, unread, revision, change) = match serde_json::from_slice(json)? {
            EventForm::Created { user_id, notification, unread_count, revision } => {
                let notification = Box::new(notification.read_as_created()?);
                (user_id, unread_count, revision, Change::Created(notification))
            }
            EventForm::MarkedRead { user_id, ids: texts, read_at, unread_count, revision } => {
                let change = Change::MarkedRead { ids: ids(texts)?, read_at: read_at.0 };
                (user_id, unread_count, revision, change)
            }
            EventForm::AllRead { user_id, read_at, unread_count, revision } => {
                (user_id, unread_count, revision, Change::AllRead { read_at: read_at.0 })
            }
            EventForm::Deleted { user_id, ids: texts, unread_count, revision } => {
                (user_id, unread_count, revision, Change::Deleted { ids: ids(texts)? })
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
    use belfry_application::testing::{a_draft, at, id, user};
    use belfry_domain::{Data, Draft};

    use super::*;

    fn events() -> Vec<DomainEvent> {
        let data = Data::of_checked_syntax(r#"{"a":[1,2.50,"\u00e4"]}"#).unwrap();
        let draft = Draft { data: Some(data), ..a_draft("ada", "n1") };
        [
            Change::Created(Box::new(draft.into_notification(Revision::new(7)))),
            Change::MarkedRead { ids: vec![id("n1"), id("n2")], read_at: at(1_234) },
            Change::AllRead { read_at: at(1_234) },
            Change::Deleted { ids: vec![id("n1")] },
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
    fn what_is_written_is_read_back_unchanged() {
        for event in events() {
            assert_eq!(EventForm::read(EventForm::write(&event).as_bytes()).unwrap(), event);
        }
    }

    #[test]
    fn a_nestjs_listener_takes_it_for_an_event() {
        for event in events() {
            let json: serde_json::Value = serde_json::from_str(&EventForm::write(&event)).unwrap();
            assert_eq!(json["pattern"], event.name());
            assert_eq!(json["data"]["userId"], "ada");
            assert_eq!(json.as_object().unwrap().len(), 2, "pattern and data, nothing else");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for raw in ["", "{}", r#"{"pattern":"notification.exploded","data":{}}"#, "[1]"] {
            assert!(EventForm::read(raw.as_bytes()).is_err(), "{raw}");
        }
    }
}
