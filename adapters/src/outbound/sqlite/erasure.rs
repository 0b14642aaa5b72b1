use async_trait::async_trait;
use belfry_application::ports::{Erased, Erasure, PortError};
use belfry_application::trace;
use belfry_domain::{EventName, UserId};
use sqlx::SqliteConnection;
use tracing::warn;

use super::failure::SqliteFailure;
use super::store::SqliteStore;
use super::write::{INSERT_EVENTS, Work, event_rows, list};
use crate::outbound::relational::statements::{
    ERASE_INBOX, ERASE_NOTIFICATIONS, RAISE_ERASED_REVISION,
};
use crate::outbound::relational::{EventRow, erased_event, events_about};

const INBOX_REVISION: &str = "SELECT revision FROM inboxes WHERE user_id = ?1";

const ERASE_KEYS: &str = "
    DELETE FROM idempotency_keys
    WHERE caller = ?1
       OR (EXISTS (SELECT 1 FROM json_each(led_to) result WHERE result.value ->> 0 = ?1)
           AND NOT EXISTS (SELECT 1 FROM json_each(led_to) result WHERE result.value ->> 0 <> ?1))";

/// Removes the user's notifications from the keys that also led to notifications of other users.
const TRIM_KEYS: &str = "
    UPDATE idempotency_keys
    SET led_to = (
        SELECT json_group_array(json(result.value))
        FROM (SELECT value FROM json_each(led_to) ORDER BY key) result
        WHERE result.value ->> 0 <> ?1
    )
    WHERE EXISTS (SELECT 1 FROM json_each(led_to) result WHERE result.value ->> 0 = ?1)";

/// `?2` is the name of the events to keep, or NULL to keep none.
const ERASE_EVENTS: &str = "DELETE FROM outbox WHERE user_id = ?1 AND name IS NOT ?2";

const EVENTS_WITHOUT_USER: &str = "SELECT id, event FROM outbox WHERE user_id IS NULL";

const ERASE_EVENTS_BY_ID: &str = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?1))";

const UNREADABLE_EVENTS: &str = "SELECT id, event FROM outbox_unreadable";

const ERASE_UNREADABLE_EVENTS: &str =
    "DELETE FROM outbox_unreadable WHERE id IN (SELECT value FROM json_each(?1))";

const FILE_SIZE: &str = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";

/// `secure_delete` overwrites deleted rows, but not the copies that stay in the unused space of a page when
/// SQLite moves rows to another page. `VACUUM` writes the whole file anew, without its unused space.
const REWRITE: &str = "VACUUM";

/// The size of the largest file that an erasure rewrites, in bytes. Other writes wait for the rewriting.
const MAX_REWRITTEN: i64 = 256 * 1024 * 1024;

/// Copies the write-ahead log into the file and truncates the log, which still contains erased data.
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

#[async_trait]
impl Erasure for SqliteStore {
    async fn erase(&self, user: &UserId) -> Result<Erased, PortError> {
        let erased = self
            .write(async |connection| {
                let erased = erase(connection, user).await?;
                let is_changed = erased != Erased::default();
                Ok(if is_changed { Work::Written(erased) } else { Work::Unchanged(erased) })
            })
            .await?;
        match self.with_writer(rewrite).await {
            Ok(bytes) if bytes > MAX_REWRITTEN => {
                warn!(bytes, "erased data may remain in unused space of the database file");
            }
            Ok(_) => {}
            Err(error) => {
                warn!(%error, "erased data may remain in unused space of the database file");
            }
        }
        Ok(erased)
    }
}

/// Removes erased data from the unused space of the file, unless the file is too large. Returns its size.
async fn rewrite(connection: &mut SqliteConnection) -> Result<i64, SqliteFailure> {
    let bytes: i64 = sqlx::query_scalar(FILE_SIZE).fetch_one(&mut *connection).await?;
    if bytes <= MAX_REWRITTEN {
        sqlx::query(REWRITE).execute(&mut *connection).await?;
    }
    sqlx::query(CHECKPOINT).execute(connection).await?;
    Ok(bytes)
}

async fn erase(connection: &mut SqliteConnection, user: &UserId) -> Result<Erased, SqliteFailure> {
    let revision: Option<i64> = sqlx::query_scalar(INBOX_REVISION)
        .bind(user.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let notifications = execute(ERASE_NOTIFICATIONS, user, connection).await?;
    let idempotency_keys =
        execute(ERASE_KEYS, user, connection).await? + execute(TRIM_KEYS, user, connection).await?;
    let events = erase_events(user, revision.is_some(), connection).await?;
    if let Some(revision) = revision {
        let (epoch, revision): (String, i64) = sqlx::query_as(RAISE_ERASED_REVISION)
            .bind(revision.saturating_add(1))
            .fetch_one(&mut *connection)
            .await?;
        execute(ERASE_INBOX, user, connection).await?;
        let event = erased_event(user, &epoch, revision)?;
        let events = event_rows([(&event, trace::current().as_ref())]);
        sqlx::query(INSERT_EVENTS).bind(events).execute(connection).await?;
    }
    Ok(Erased { inbox: revision.is_some(), notifications, idempotency_keys, events })
}

/// Removes the events of the user from the outbox. If there is no inbox, the event of an earlier erasure
/// stays, because no later event replaces it.
async fn erase_events(
    user: &UserId,
    has_inbox: bool,
    connection: &mut SqliteConnection,
) -> Result<u64, SqliteFailure> {
    let kept = (!has_inbox).then_some(EventName::ALL_ERASED);
    let query = sqlx::query(ERASE_EVENTS).bind(user.as_str()).bind(kept);
    let mut erased = query.execute(&mut *connection).await?.rows_affected();
    for (find, erase) in
        [(EVENTS_WITHOUT_USER, ERASE_EVENTS_BY_ID), (UNREADABLE_EVENTS, ERASE_UNREADABLE_EVENTS)]
    {
        let rows: Vec<EventRow> = sqlx::query_as(find).fetch_all(&mut *connection).await?;
        let query = sqlx::query(erase).bind(list(events_about(user, &rows)));
        erased += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(erased)
}

/// Runs a statement whose only parameter is the user. Returns the number of affected rows.
async fn execute(
    statement: &'static str,
    user: &UserId,
    connection: &mut SqliteConnection,
) -> Result<u64, SqliteFailure> {
    Ok(sqlx::query(statement).bind(user.as_str()).execute(connection).await?.rows_affected())
}
