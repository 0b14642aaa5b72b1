use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::{
    Outbox, OutboxBacklog, OutboxEntry, OutboxId, OutboxLease, Page, PageLimit, PortError,
};

use super::commit_notifier::LeaderFlag;
use super::failure::SqliteFailure;
use super::store::{DURABLE_COMMITS, SqliteStore};
use super::write::{Work, in_sequence, list};
use crate::outbound::relational::{
    BacklogRow, OutboxRow, SizedRow, UnreadableEntry, clamped, one_more, page, parse_entries,
};

/// At most `?1` entries whose events have at most `?2` bytes together; a larger one alone. See
/// [`queries`](super::queries) for the plus.
const PENDING: &str = "
    SELECT id, event, name, user_id, revision, traceparent, written_at, found
    FROM (
        SELECT entry.*, count(*) OVER () AS found,
            sum(entry.bytes) OVER (ORDER BY entry.id) AS running_bytes
        FROM (
            SELECT id, event, name, user_id, revision, traceparent, written_at,
                octet_length(event) AS bytes
            FROM outbox ORDER BY id LIMIT +?1
        ) entry
    ) entry
    WHERE running_bytes <= ?2 OR running_bytes = bytes
    ORDER BY id";

/// Both ends of the age are the database's time.
const BACKLOG: &str = "
    SELECT count(*) AS entries,
        coalesce(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - min(written_at), 0) AS age
    FROM outbox";

const REMOVE: &str = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))";

/// Does not wait until the disk has the removal. An entry that reappears after a power failure is published
/// again, as after a crash between publish and removal. After a failure, the store restores the setting when the
/// connection is released.
static REMOVE_PUBLISHED: LazyLock<String> =
    LazyLock::new(|| in_sequence(&["PRAGMA synchronous = NORMAL", REMOVE, DURABLE_COMMITS]));

const SET_ASIDE: &str = "
    INSERT INTO outbox_unreadable (id, event, traceparent, written_at, reason)
    SELECT id, event, traceparent, written_at, ?2 FROM outbox WHERE id = ?1";

#[async_trait]
impl Outbox for SqliteStore {
    /// A flag in memory is enough, because no other process has the file open.
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        let Some(leader) = self.notifier.try_lead() else {
            return Ok(None);
        };
        Ok(Some(Box::new(SqliteOutboxLease { store: self.clone(), _leader: leader })))
    }

    async fn backlog(&self) -> Result<OutboxBacklog, PortError> {
        let row: Option<BacklogRow> = self.fetch_optional(sqlx::query_as(BACKLOG)).await?;
        Ok(row.as_ref().map(BacklogRow::to_backlog).transpose()?.unwrap_or_default())
    }
}

struct SqliteOutboxLease {
    store: SqliteStore,
    _leader: LeaderFlag,
}

impl SqliteOutboxLease {
    async fn set_aside(&self, entry: &UnreadableEntry) -> Result<(), SqliteFailure> {
        entry.log();
        self.store
            .in_transaction(async |connection| {
                let copy = sqlx::query(SET_ASIDE).bind(entry.id).bind(entry.reason());
                copy.execute(&mut *connection).await?;
                sqlx::query(REMOVE).bind(list([entry.id])).execute(connection).await?;
                Ok(Work::Written(()))
            })
            .await?;
        Ok(())
    }
}

#[async_trait]
impl OutboxLease for SqliteOutboxLease {
    async fn pending(&mut self, limit: PageLimit) -> Result<Page<OutboxEntry>, PortError> {
        loop {
            let query =
                sqlx::query_as(PENDING).bind(one_more(limit.rows)).bind(clamped(limit.bytes));
            let rows: Vec<SizedRow<OutboxRow<i64>>> = self.store.fetch_all(query).await?;
            let Page { items: rows, more } = page(rows, limit).map_err(SqliteFailure::from)?;
            let (items, unreadable) = parse_entries(rows);
            if unreadable.is_empty() {
                return Ok(Page { items, more });
            }
            for entry in &unreadable {
                self.set_aside(entry).await?;
            }
        }
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        let ids = list(entries.iter().map(|OutboxId(id)| *id));
        let query = sqlx::query(REMOVE_PUBLISHED.as_str()).bind(ids);
        self.store.with_writer(async |connection| Ok(query.execute(connection).await?)).await?;
        Ok(())
    }

    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        self.store.notifier.commit(patience).await;
        Ok(())
    }
}
