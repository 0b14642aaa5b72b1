use std::fmt::Display;

use belfry_domain::{
    Data, Link, Message, Notification, NotificationId, NotificationKind, Priority, Revision, Title,
    UserId,
};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use super::stored_value::{InvalidStoredValue, non_negative};
use super::timestamp::StoredTimestamp;

/// A row of `notifications`, without the columns that only statements use.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct NotificationRow<At> {
    user_id: String,
    id: String,
    created_revision: i64,
    revision: i64,
    created_at: At,
    expires_at: Option<At>,
    read_at: Option<At>,
    priority: String,
    kind: String,
    title: String,
    message: String,
    link: Option<String>,
    data: Option<String>,
}

impl<At: StoredTimestamp> NotificationRow<At> {
    pub(crate) fn parse(self) -> Result<Notification, InvalidStoredValue> {
        let invalid = |error: &dyn Display| {
            let what = format!("notification {:?} of user {:?}", self.id, self.user_id);
            InvalidStoredValue::new(what, &error)
        };
        Ok(Notification {
            id: NotificationId::parse(&self.id).map_err(|e| invalid(&e))?,
            user: UserId::parse(&self.user_id).map_err(|e| invalid(&e))?,
            kind: NotificationKind::parse(&self.kind).map_err(|e| invalid(&e))?,
            title: Title::parse(&self.title).map_err(|e| invalid(&e))?,
            message: Message::parse(&self.message).map_err(|e| invalid(&e))?,
            data: self
                .data
                .as_deref()
                .map(Data::from_valid_json)
                .transpose()
                .map_err(|e| invalid(&e))?,
            link: self.link.as_deref().map(Link::parse).transpose().map_err(|e| invalid(&e))?,
            priority: self.priority.parse::<Priority>().map_err(|e| invalid(&e))?,
            created_at: self.created_at.to_domain(),
            expires_at: self.expires_at.as_ref().map(At::to_domain),
            read_at: self.read_at.as_ref().map(At::to_domain),
            created_revision: Revision::new(non_negative(self.created_revision)?),
            revision: Revision::new(non_negative(self.revision)?),
        })
    }
}

/// Parses all rows, or fails with the first that is invalid.
pub(crate) fn notifications<At: StoredTimestamp>(
    rows: impl IntoIterator<Item = NotificationRow<At>>,
) -> Result<Vec<Notification>, InvalidStoredValue> {
    rows.into_iter().map(NotificationRow::parse).collect()
}

/// A notification of an outer join: `None` if all its columns are null.
#[derive(Debug, Clone)]
pub(crate) struct JoinedNotification<At>(pub(crate) Option<NotificationRow<At>>);

impl<'r, R, At> FromRow<'r, R> for JoinedNotification<At>
where
    R: Row,
    NotificationRow<At>: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let exists = row.try_get::<Option<String>, _>("id")?.is_some();
        let notification = exists.then(|| NotificationRow::from_row(row));
        notification.transpose().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use belfry_domain::Timestamp;

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
    fn valid_row_is_parsed_to_a_notification() {
        let one = a_row().parse().unwrap();
        assert_eq!(one.id.as_str(), "n1");
        assert_eq!(one.priority, Priority::High);
        assert_eq!(one.expires_at, Some(Timestamp::from_unix_millis(9)));
        assert_eq!((one.created_revision.get(), one.revision.get()), (1, 2));
    }

    #[test]
    fn invalid_row_is_an_error_that_names_the_notification() {
        let blank_title = NotificationRow { title: " ".to_owned(), ..a_row() };
        let error = blank_title.parse().unwrap_err().to_string();
        assert!(error.contains("\"n1\"") && error.contains("title"), "{error}");
        let negative = NotificationRow { revision: -1, ..a_row() };
        assert!(negative.parse().is_err());
    }
}
