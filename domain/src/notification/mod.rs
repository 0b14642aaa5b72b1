//! A notification, its draft and their fields.

mod fields;
mod id;
mod link_schemes;

pub use fields::{
    Data, InvalidData, InvalidLink, InvalidMessage, InvalidNotificationKind, InvalidPriority,
    InvalidTitle, Link, Message, NotificationKind, Priority, Title,
};
pub use id::{InvalidId, NotificationId};
pub use link_schemes::{InvalidLinkScheme, LinkScheme, LinkSchemeNotAllowed, LinkSchemes};

use crate::inbox_state::Revision;
use crate::time::Timestamp;
use crate::user::UserId;

/// A notification before an inbox has accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Unique within the inbox of `user`.
    pub id: NotificationId,
    /// The recipient.
    pub user: UserId,
    /// The wire format calls it `type`.
    pub kind: NotificationKind,
    /// The headline.
    pub title: Title,
    /// The body text; may be empty.
    pub message: Message,
    /// Custom data of the application.
    pub data: Option<Data>,
    /// The target of a tap on the notification.
    pub link: Option<Link>,
    /// How urgent it is.
    pub priority: Priority,
    /// Prevents duplicates: a second draft with the same key in the same inbox is a duplicate of the
    /// first, whatever its id. The key has the syntax of an id.
    pub dedupe_key: Option<NotificationId>,
    /// When the sender created it.
    pub created_at: Timestamp,
    /// When it may be removed because it is no longer relevant; `None` for never.
    pub expires_at: Option<Timestamp>,
}

/// Why a draft is invalid although each of its fields is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDraft {
    /// It expires at or before its creation.
    #[error("expiresAt must be later than createdAt")]
    ExpiresBeforeCreated,
}

impl Draft {
    /// Checks the rules that concern several fields.
    pub fn check(self) -> Result<Self, InvalidDraft> {
        match self.expires_at {
            Some(end) if end <= self.created_at => Err(InvalidDraft::ExpiresBeforeCreated),
            _ => Ok(self),
        }
    }

    /// The size of the draft's texts in bytes, computed as in [`Notification::text_bytes`].
    pub fn text_bytes(&self) -> usize {
        let Self { id, kind, title, message, link, data, .. } = self;
        text_bytes(id, kind, title, message, link.as_ref(), data.as_ref())
    }

    /// The notification that this draft becomes when its inbox accepts it. `revision` is the number of that
    /// change within the inbox.
    pub fn into_notification(self, revision: Revision) -> Notification {
        Notification {
            id: self.id,
            user: self.user,
            kind: self.kind,
            title: self.title,
            message: self.message,
            data: self.data,
            link: self.link,
            priority: self.priority,
            created_at: self.created_at,
            expires_at: self.expires_at,
            read_at: None,
            created_revision: revision,
            revision,
        }
    }
}

/// One notification in a user's inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Unique within the inbox of `user`.
    pub id: NotificationId,
    /// The owner of the inbox.
    pub user: UserId,
    /// The wire format calls it `type`.
    pub kind: NotificationKind,
    /// The headline.
    pub title: Title,
    /// The body text; may be empty.
    pub message: Message,
    /// Custom data of the application.
    pub data: Option<Data>,
    /// The target of a tap on the notification.
    pub link: Option<Link>,
    /// How urgent it is.
    pub priority: Priority,
    /// When the sender created it.
    pub created_at: Timestamp,
    /// When it may be removed because it is no longer relevant; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// When the user read it; `None` while unread.
    pub read_at: Option<Timestamp>,
    /// The revision of its creation. Unique within the inbox; lists are ordered by it.
    pub created_revision: Revision,
    /// The revision of its latest change.
    pub revision: Revision,
}

impl Notification {
    /// Whether the user has read it.
    pub fn is_read(&self) -> bool {
        self.read_at.is_some()
    }

    /// The size of its texts in bytes: id, kind, title, message, link and data. Pages of a list are limited
    /// by the sum of these sizes, so a store that limits a page in its query must count the same fields.
    pub fn text_bytes(&self) -> usize {
        let Self { id, kind, title, message, link, data, .. } = self;
        text_bytes(id, kind, title, message, link.as_ref(), data.as_ref())
    }

    /// Whether the recipient and the content equal those of `draft`. The id and the fields that an inbox
    /// sets are ignored. So are `created_at` and `expires_at`: a sender that retries no longer knows the
    /// instants of its first attempt.
    pub fn has_same_content(&self, draft: &Draft) -> bool {
        self.user == draft.user
            && self.kind == draft.kind
            && self.title == draft.title
            && self.message == draft.message
            && self.data == draft.data
            && self.link == draft.link
            && self.priority == draft.priority
    }
}

fn text_bytes(
    id: &NotificationId,
    kind: &NotificationKind,
    title: &Title,
    message: &Message,
    link: Option<&Link>,
    data: Option<&Data>,
) -> usize {
    let required = [id.as_str(), kind.as_str(), title.as_str(), message.as_str()];
    let optional = [link.map(Link::as_str), data.map(Data::as_str)];
    required.into_iter().chain(optional.into_iter().flatten()).map(str::len).sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A draft with a value in every field.
    pub(crate) fn a_draft() -> Draft {
        Draft {
            id: NotificationId::parse("n1").unwrap(),
            user: UserId::parse("ada").unwrap(),
            kind: NotificationKind::parse("order.shipped").unwrap(),
            title: Title::parse("On its way").unwrap(),
            message: Message::parse("Order 7 left the house.").unwrap(),
            data: Some(Data::from_valid_json("{\"order\":7}").unwrap()),
            link: Some(Link::parse("/orders/7").unwrap()),
            priority: Priority::High,
            dedupe_key: None,
            created_at: Timestamp::from_unix_millis(1_000),
            expires_at: Some(Timestamp::from_unix_millis(1_001)),
        }
    }

    #[test]
    fn draft_must_expire_after_its_creation() {
        for (millis, valid) in [(999, false), (1_000, false), (1_001, true)] {
            let expires_at = Some(Timestamp::from_unix_millis(millis));
            let draft = Draft { expires_at, ..a_draft() };
            assert_eq!(draft.check().is_ok(), valid, "at {millis}");
        }
        assert!(Draft { expires_at: None, ..a_draft() }.check().is_ok());
    }

    #[test]
    fn text_bytes_counts_each_text_in_bytes() {
        let texts = ["n1", "order.shipped", "On its way", "Order 7 left the house."];
        let optional = ["{\"order\":7}", "/orders/7"];
        let bytes = |texts: &[&str]| texts.iter().map(|text| text.len()).sum::<usize>();
        let size = |draft: Draft| {
            let bytes = draft.text_bytes();
            assert_eq!(draft.into_notification(Revision::new(1)).text_bytes(), bytes);
            bytes
        };

        assert_eq!(size(a_draft()), bytes(&texts) + bytes(&optional));
        assert_eq!(size(Draft { data: None, link: None, ..a_draft() }), bytes(&texts));
        // Two characters of two bytes each.
        let title = Title::parse("ßß").unwrap();
        let without_message = Draft { title, message: Message::default(), ..a_draft() };
        assert_eq!(size(without_message), bytes(&["n1", "order.shipped"]) + 4 + bytes(&optional));
    }

    #[test]
    fn draft_of_a_retry_has_the_same_content_although_its_instants_differ() {
        let stored = a_draft().into_notification(Revision::new(1));
        let retry = Draft {
            id: NotificationId::parse("n2").unwrap(),
            created_at: Timestamp::from_unix_millis(5_000),
            expires_at: None,
            ..a_draft()
        };
        assert!(stored.has_same_content(&retry));
    }

    #[test]
    fn draft_that_differs_in_one_field_has_other_content() {
        let stored = a_draft().into_notification(Revision::new(1));
        for other in [
            Draft { user: UserId::parse("bob").unwrap(), ..a_draft() },
            Draft { kind: NotificationKind::default(), ..a_draft() },
            Draft { title: Title::parse("Delayed").unwrap(), ..a_draft() },
            Draft { message: Message::default(), ..a_draft() },
            Draft { data: None, ..a_draft() },
            Draft { link: None, ..a_draft() },
            Draft { priority: Priority::Normal, ..a_draft() },
        ] {
            assert!(!stored.has_same_content(&other), "{other:?}");
        }
    }
}
