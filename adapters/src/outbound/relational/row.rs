use std::fmt::Display;

use belfry_domain::{
    Data, InboxState, Link, Message, Notification, NotificationId, NotificationKind, Priority,
    Revision, Timestamp, Title, UnreadCount, UserId,
};
use chrono::{DateTime, Utc};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use super::whole;

/// An inbox's place in its history, as `inboxes` keeps it.
pub(crate) fn inbox_state(revision: i64, unread: i64) -> Result<InboxState, Unreadable> {
    Ok(InboxState {
        revision: Revision::new(whole(revision)?),
        unread: UnreadCount::new(whole(unread)?),
    })
}

/// Something is stored that the domain does not accept. It got there past Belfry, or by a Belfry
/// with other rules.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is stored that is not valid: {why}")]
pub(crate) struct Unreadable {
    what: String,
    why: String,
}

impl Unreadable {
    pub(crate) fn new(what: impl Into<String>, why: &impl ToString) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

/// A column type that keeps an instant.
pub(crate) trait StoredInstant {
    fn instant(&self) -> Timestamp;
}

/// PostgreSQL's `timestamptz`.
impl StoredInstant for DateTime<Utc> {
    fn instant(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.timestamp_millis())
    }
}

/// SQLite's `INTEGER`: milliseconds since 1970 began.
impl StoredInstant for i64 {
    fn instant(&self) -> Timestamp {
        Timestamp::from_unix_millis(*self)
    }
}

/// A row of `notifications`, but for what only the database looks at.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct NotificationRow<At> {
    pub(crate) user_id: String,
    pub(crate) id: String,
    pub(crate) created_revision: i64,
    pub(crate) revision: i64,
    pub(crate) created_at: At,
    pub(crate) expires_at: Option<At>,
    pub(crate) read_at: Option<At>,
    pub(crate) priority: String,
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) message: String,
    pub(crate) link: Option<String>,
    pub(crate) data: Option<String>,
}

impl<At: StoredInstant> NotificationRow<At> {
    /// The notification that this row keeps.
    pub(crate) fn read(self) -> Result<Notification, Unreadable> {
        let named = |why: &dyn Display| {
            let what = format!("notification {:?} of user {:?}", self.id, self.user_id);
            Unreadable::new(what, &why)
        };
        Ok(Notification {
            id: NotificationId::parse(&self.id).map_err(|e| named(&e))?,
            user: UserId::parse(&self.user_id).map_err(|e| named(&e))?,
            kind: NotificationKind::parse(&self.kind).map_err(|e| named(&e))?,
            title: Title::parse(&self.title).map_err(|e| named(&e))?,
            message: Message::parse(&self.message).map_err(|e| named(&e))?,
            data: self
                .data
                .as_deref()
                .map(Data::of_checked_syntax)
                .transpose()
                .map_err(|e| named(&e))?,
            link: self.link.as_deref().map(Link::parse).transpose().map_err(|e| named(&e))?,
            priority: self.priority.parse::<Priority>().map_err(|e| named(&e))?,
            created_at: self.created_at.instant(),
            expires_at: self.expires_at.as_ref().map(At::instant),
            read_at: self.read_at.as_ref().map(At::instant),
            created_revision: Revision::new(whole(self.created_revision)?),
            revision: Revision::new(whole(self.revision)?),
        })
    }
}

/// A notification that an outer join may have found; a row of nulls is none.
#[derive(Debug, Clone)]
pub(crate) struct Joined<At>(pub(crate) Option<NotificationRow<At>>);

impl<'r, R, At> FromRow<'r, R> for Joined<At>
where
    R: Row,
    NotificationRow<At>: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let there = row.try_get::<Option<String>, _>("id")?.is_some();
        let found = there.then(|| NotificationRow::from_row(row));
        found.transpose().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_row() -> NotificationRow<i64> {
        NotificationRow {
            user_id: "ada".to_owned(),
            id: "n1".to_owned(),
            created_revision: 1,
            revision: 2,
            created_at: 5,
            expires_at: Some(9),
            read_at: None,
            priority: "high".to_owned(),
            kind: "mention".to_owned(),
            title: "Hello".to_owned(),
            message: String::new(),
            link: None,
            data: Some("{}".to_owned()),
        }
    }

    #[test]
    fn a_row_becomes_the_notification_it_keeps() {
        let one = a_row().read().unwrap();
        assert_eq!(one.id.as_str(), "n1");
        assert_eq!(one.priority, Priority::High);
        assert_eq!(one.expires_at, Some(Timestamp::from_unix_millis(9)));
        assert_eq!((one.created_revision.get(), one.revision.get()), (1, 2));
    }

    #[test]
    fn what_is_not_valid_is_named_and_no_panic() {
        let broken = NotificationRow { title: " ".to_owned(), ..a_row() };
        let said = broken.read().unwrap_err().to_string();
        assert!(said.contains("\"n1\"") && said.contains("title"), "{said}");
        let negative = NotificationRow { revision: -1, ..a_row() };
        assert!(negative.read().is_err());
    }
}
