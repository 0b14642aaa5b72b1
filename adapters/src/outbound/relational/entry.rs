use belfry_application::ports::{OutboxEntry, OutboxId};
use belfry_application::trace::TraceParent;

use super::StoredInstant;
use crate::wire::{EventForm, InvalidEvent};

/// A row of `outbox`.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct EntryRow<At> {
    pub(crate) id: i64,
    event: String,
    traceparent: Option<String>,
    written_at: At,
}

impl<At: StoredInstant> EntryRow<At> {
    /// The entry that this row keeps.
    pub(crate) fn read(&self) -> Result<OutboxEntry, InvalidEvent> {
        let trace = self.traceparent.as_deref().map(TraceParent::parse);
        Ok(OutboxEntry {
            id: OutboxId(self.id),
            event: EventForm::read(self.event.as_bytes())?,
            written_at: self.written_at.instant(),
            // An event is told also where its trace has been lost.
            trace: trace.and_then(Result::ok),
        })
    }
}
