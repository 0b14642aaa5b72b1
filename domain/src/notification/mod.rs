//! A notification and the values it is made of.

mod fields;
mod id;

pub use fields::{
    Data, InvalidData, InvalidKind, InvalidLink, InvalidMessage, InvalidPriority, InvalidTitle,
    Kind, Link, Message, Priority, Title,
};
pub use id::{InvalidId, NotificationId};

use crate::{Revision, Timestamp, UserId};

/// What somebody asks to be told to a user: a notification that no inbox has taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Unique within the inbox of `user`.
    pub id: NotificationId,
    /// The recipient.
    pub user: UserId,
    /// What kind of notification it is.
    pub kind: Kind,
    /// The headline.
    pub title: Title,
    /// The text below it; may be empty.
    pub message: Message,
    /// What the application that shows it wants to know besides.
    pub data: Option<Data>,
    /// Where a tap on it leads.
    pub link: Option<Link>,
    /// How urgent it is.
    pub priority: Priority,
    /// What it replaces being told twice: a second draft with the same key in the same inbox is
    /// the same notification, whatever its id.
    pub dedupe_key: Option<NotificationId>,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it loses its meaning and may be removed.
    pub expires_at: Option<Timestamp>,
}

/// Why a draft makes no sense although each of its parts does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDraft {
    /// It would expire before it exists.
    #[error("expiresAt must be later than createdAt")]
    ExpiresBeforeItExists,
}

impl Draft {
    /// Checks the rules that hold between the parts.
    pub fn check(self) -> Result<Self, InvalidDraft> {
        match self.expires_at {
            Some(end) if end <= self.created_at => Err(InvalidDraft::ExpiresBeforeItExists),
            _ => Ok(self),
        }
    }

    /// The notification this becomes when an inbox takes it as its change `revision`.
    pub fn taken_at(self, revision: Revision) -> Notification {
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
    /// Whose inbox it is in.
    pub user: UserId,
    /// What kind of notification it is.
    pub kind: Kind,
    /// The headline.
    pub title: Title,
    /// The text below it; may be empty.
    pub message: Message,
    /// What the application that shows it wants to know besides.
    pub data: Option<Data>,
    /// Where a tap on it leads.
    pub link: Option<Link>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it loses its meaning and may be removed.
    pub expires_at: Option<Timestamp>,
    /// When the user read it; `None` while unread.
    pub read_at: Option<Timestamp>,
    /// The change of the inbox that brought it. Orders an inbox: no two notifications share one.
    pub created_revision: Revision,
    /// The latest change of the inbox that concerned it.
    pub revision: Revision,
}

impl Notification {
    /// Whether the user has read it.
    pub fn is_read(&self) -> bool {
        self.read_at.is_some()
    }

    /// How many bytes of text it has. Pages are bounded by this, so a store that limits a page in its
    /// query must count the same: the id, the kind, the title, the message, the link and the data.
    pub fn text_bytes(&self) -> usize {
        let optional = [self.link.as_ref().map(Link::as_str), self.data.as_ref().map(Data::as_str)];
        let required =
            [self.id.as_str(), self.kind.as_str(), self.title.as_str(), self.message.as_str()];
        required.into_iter().chain(optional.into_iter().flatten()).map(str::len).sum()
    }

    /// Whether it says the same as `draft`: equal but for what an inbox adds, and for the instant
    /// at which it was put down, which a sender who tries again does not know any more.
    pub fn says_the_same_as(&self, draft: &Draft) -> bool {
        self.user == draft.user
            && self.kind == draft.kind
            && self.title == draft.title
            && self.message == draft.message
            && self.data == draft.data
            && self.link == draft.link
            && self.priority == draft.priority
    }
}
