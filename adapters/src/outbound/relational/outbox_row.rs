use std::error::Error;

use belfry_application::ports::{OutboxEntry, OutboxId};
use belfry_application::trace::TraceParent;
use tracing::error;

use super::timestamp::StoredTimestamp;
use crate::wire::{EventForm, InvalidEvent};

/// A row of `outbox`.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct OutboxRow<At> {
    id: i64,
    event: String,
    traceparent: Option<String>,
    written_at: At,
}

/// An outbox entry whose event cannot be parsed.
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
    rows: &[OutboxRow<At>],
) -> (Vec<OutboxEntry>, Vec<UnreadableEntry>) {
    let mut entries = Vec::with_capacity(rows.len());
    let mut unreadable = Vec::new();
    for row in rows {
        match row.parse() {
            Ok(entry) => entries.push(entry),
            Err(error) => unreadable.push(UnreadableEntry { id: row.id, error }),
        }
    }
    (entries, unreadable)
}

impl<At: StoredTimestamp> OutboxRow<At> {
    fn parse(&self) -> Result<OutboxEntry, InvalidEvent> {
        let trace = self.traceparent.as_deref().map(TraceParent::parse);
        Ok(OutboxEntry {
            id: OutboxId(self.id),
            event: EventForm::read(self.event.as_bytes())?,
            written_at: self.written_at.to_domain(),
            // An invalid trace context does not keep an event from being published.
            trace: trace.and_then(Result::ok),
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
