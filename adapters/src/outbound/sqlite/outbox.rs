use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::{Outbox, OutboxEntry, OutboxId, OutboxLease, PortError};
use tokio::sync::Notify;
use tracing::error;

use super::SqliteStore;
use super::failure::Failure;
use super::write::{Work, list};
use crate::outbound::relational::{Call, EntryRow, clamped, whole};
use crate::wire::InvalidEvent;

/// Puts out the events of `?1`, in order, as parts of the trace `?2`.
pub(super) const TELL: &str = "
    INSERT INTO outbox (event, traceparent)
    SELECT value, ?2 FROM json_each(?1) ORDER BY key";

const PENDING: &str = "SELECT id, event, traceparent, written_at FROM outbox ORDER BY id LIMIT ?1";

const FORGET: &str = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?1))";

const SET_ASIDE: &str = "
    INSERT INTO outbox_unreadable (id, event, traceparent, written_at, reason)
    SELECT id, event, traceparent, written_at, ?2 FROM outbox WHERE id = ?1";

/// What a store and its lead have in common; a lead outlives the call that gave it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Keeps one call for a lead that is about to wait.
    written: Notify,
    led: AtomicBool,
}

impl Shared {
    /// Calls the lead when the answer is dropped.
    pub(super) fn call_when_dropped(&self) -> Call<impl FnMut()> {
        Call::when_dropped(|| self.written.notify_one())
    }
}

#[async_trait]
impl Outbox for SqliteStore {
    /// No other process has the file, so a flag tells whether somebody leads.
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        if self.shared.led.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lead { store: self.clone(), _led: Led(self.shared.clone()) })))
    }

    async fn backlog(&self) -> Result<u64, PortError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&self.readers)
            .await
            .map_err(Failure::from)?;
        Ok(whole(count).map_err(Failure::from)?)
    }
}

struct Lead {
    store: SqliteStore,
    _led: Led,
}

/// Somebody leads for as long as this lives.
struct Led(Arc<Shared>);

impl Drop for Led {
    fn drop(&mut self) {
        self.0.led.store(false, Ordering::SeqCst);
    }
}

impl Lead {
    /// Moves an entry out of the way that cannot be told. Neither it nor those behind it may be lost:
    /// it is kept beside the outbox, and the device that it was for sees a gap in the revisions and
    /// reads its inbox.
    async fn set_aside(&self, id: i64, why: &InvalidEvent) -> Result<(), Failure> {
        error!(
            entry = id,
            error = why as &dyn Error,
            "an outbox entry cannot be read and is set aside in outbox_unreadable"
        );
        let reason = why.to_string();
        self.store
            .in_transaction(async |connection| {
                let aside = sqlx::query(SET_ASIDE).bind(id).bind(reason);
                aside.execute(&mut *connection).await?;
                let gone = sqlx::query(FORGET).bind(list([id]));
                gone.execute(connection).await?;
                Ok(Work::Written(()))
            })
            .await?;
        Ok(())
    }
}

#[async_trait]
impl OutboxLease for Lead {
    async fn pending(&mut self, limit: usize) -> Result<Vec<OutboxEntry>, PortError> {
        loop {
            let rows: Vec<EntryRow<i64>> = sqlx::query_as(PENDING)
                .bind(clamped(limit))
                .fetch_all(&self.store.readers)
                .await
                .map_err(Failure::from)?;
            let mut entries = Vec::with_capacity(rows.len());
            for row in &rows {
                match row.read() {
                    Ok(entry) => entries.push(entry),
                    Err(why) => self.set_aside(row.id, &why).await?,
                }
            }
            // Fewer would be understood as "no others wait".
            if entries.len() == rows.len() {
                return Ok(entries);
            }
        }
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        let ids = list(entries.iter().map(|OutboxId(id)| *id));
        self.store
            .in_transaction(async |connection| {
                sqlx::query(FORGET).bind(ids).execute(connection).await?;
                Ok(Work::Written(()))
            })
            .await?;
        Ok(())
    }

    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        // Patience that runs out is no failure: the wait is over either way.
        let _ = tokio::time::timeout(patience, self.store.shared.written.notified()).await;
        Ok(())
    }
}
