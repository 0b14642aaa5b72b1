use std::error::Error;
use std::time::Duration;

use belfry_application::ports::{EventHeader, OutboxBacklog, OutboxEntry, OutboxId};
use belfry_application::trace::TraceParent;
use belfry_domain::{EventName, Revision, UserId};
use tracing::error;

use super::stored_value::{InvalidStoredValue, non_negative};
use super::timestamp::StoredTimestamp;
use crate::wire::{EventForm, InvalidEvent};

/// A row of `outbox`.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct OutboxRow<At> {
    pub(crate) id: i64,
    event: String,
    name: Option<String>,
    user_id: Option<String>,
    revision: Option<i64>,
    traceparent: Option<String>,
    written_at: At,
}

/// The number of entries of an outbox, and the age of the oldest one in milliseconds.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct BacklogRow {
    entries: i64,
    /// Negative if the database's clock was set back.
    age: i64,
}

impl BacklogRow {
    pub(crate) fn to_backlog(&self) -> Result<OutboxBacklog, InvalidStoredValue> {
        let age = Duration::from_millis(u64::try_from(self.age).unwrap_or(0));
        Ok(OutboxBacklog { entries: non_negative(self.entries)?, age })
    }
}

/// An outbox entry without a header, whose event cannot be parsed either.
///
/// The store moves it to `outbox_unreadable`, so that neither it nor the entries behind it are
/// lost. The user's devices see a gap in the revisions and reload the inbox.
#[derive(Debug)]
pub(crate) struct UnreadableEntry {
    pub(crate) id: i64,
    error: InvalidEvent,
}

/// Parses rows, and separates the entries that cannot be parsed.
pub(crate) fn parse_entries<At: StoredTimestamp>(
    rows: impl IntoIterator<Item = OutboxRow<At>>,
) -> (Vec<OutboxEntry>, Vec<UnreadableEntry>) {
    let rows = rows.into_iter();
    let mut entries = Vec::with_capacity(rows.size_hint().0);
    let mut unreadable = Vec::new();
    for row in rows {
        let id = row.id;
        match row.parse() {
            Ok(entry) => entries.push(entry),
            Err(error) => unreadable.push(UnreadableEntry { id, error }),
        }
    }
    (entries, unreadable)
}

impl<At: StoredTimestamp> OutboxRow<At> {
    fn parse(self) -> Result<OutboxEntry, InvalidEvent> {
        let header = match self.header() {
            Some(header) => header,
            None => EventHeader::of(&EventForm::read(self.event.as_bytes())?),
        };
        let trace = self.traceparent.as_deref().map(TraceParent::parse);
        Ok(OutboxEntry {
            id: OutboxId(self.id),
            header,
            body: self.event.into(),
            written_at: self.written_at.to_domain(),
            // An invalid trace context does not keep an event from being published.
            trace: trace.and_then(Result::ok),
        })
    }

    /// The header from its columns. `None` if they are null, because a node of a version without
    /// these columns wrote the row or an operator moved it back from `outbox_unreadable`, or if they
    /// are invalid, because another program wrote it.
    fn header(&self) -> Option<EventHeader> {
        Some(EventHeader {
            name: EventName::parse(self.name.as_deref()?).ok()?,
            user: UserId::parse(self.user_id.as_deref()?).ok()?,
            revision: Revision::new(self.revision?.try_into().ok()?),
        })
    }
}

impl UnreadableEntry {
    /// For the column `reason`.
    pub(crate) fn reason(&self) -> String {
        self.error.to_string()
    }

    pub(crate) fn log(&self) {
        error!(
            entry = self.id,
            error = &self.error as &dyn Error,
            "cannot parse outbox entry; moving it to outbox_unreadable"
        );
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::user;

    use super::*;

    /// With other white space than Belfry writes.
    const READ_ALL: &str = r#"{"pattern": "notification.all_read", "data": {"userId": "ada",
        "readAt": "2026-11-23T08:15:30.123Z", "unreadCount": 0, "revision": 7}}"#;

    fn row(event: &str) -> OutboxRow<i64> {
        OutboxRow {
            id: 1,
            event: event.to_owned(),
            name: Some("notification.archived".to_owned()),
            user_id: Some("bob".to_owned()),
            revision: Some(9),
            traceparent: None,
            written_at: 5,
        }
    }

    fn header(name: &str, recipient: &str, revision: u64) -> EventHeader {
        EventHeader {
            name: EventName::parse(name).unwrap(),
            user: user(recipient),
            revision: Revision::new(revision),
        }
    }

    #[test]
    fn event_of_a_row_with_a_header_is_not_parsed() {
        let entry = row("of a newer version").parse().unwrap();
        assert_eq!(entry.header, header("notification.archived", "bob", 9));
        assert_eq!(&*entry.body, "of a newer version");
    }

    #[test]
    fn row_without_a_valid_header_gets_it_from_the_event_and_keeps_the_text() {
        for row in [
            OutboxRow { name: None, user_id: None, revision: None, ..row(READ_ALL) },
            OutboxRow { name: Some("two words".to_owned()), ..row(READ_ALL) },
            OutboxRow { user_id: Some(String::new()), ..row(READ_ALL) },
            OutboxRow { revision: Some(-1), ..row(READ_ALL) },
        ] {
            let entry = row.parse().unwrap();
            assert_eq!(entry.header, header("notification.all_read", "ada", 7));
            assert_eq!(&*entry.body, READ_ALL);
        }
    }

    #[test]
    fn age_of_entries_from_the_future_is_zero() {
        let backlog = |age| BacklogRow { entries: 2, age }.to_backlog().unwrap().age;
        assert_eq!(backlog(1_500), Duration::from_millis(1_500));
        assert_eq!(backlog(-1_500), Duration::ZERO);
    }

    #[test]
    fn row_without_a_header_or_a_readable_event_is_unreadable() {
        let rows = vec![row("{}"), OutboxRow { id: 2, revision: None, ..row("{}") }];
        let (entries, unreadable) = parse_entries(rows);
        assert_eq!(entries.len(), 1);
        assert_eq!(unreadable[0].id, 2);
        assert!(unreadable[0].reason().contains("not the JSON of an event"));
    }
}
