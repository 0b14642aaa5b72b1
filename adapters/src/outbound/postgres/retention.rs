use async_trait::async_trait;
use belfry_application::ports::{PortError, Retention};
use belfry_domain::{Change, ExpiryCutoff, Timestamp, UserId};
use chrono::DateTime;
use sqlx::{Connection, PgConnection};

use super::edit::EditGroup;
use super::failure::PgFailure;
use super::optimistic_write::{Attempt, LOCK_INBOXES, OptimisticWrite as _};
use super::store::{PostgresStore, with_retry};
use crate::outbound::relational::statements::{
    PURGE_IDEMPOTENCY_KEYS, PURGE_REVOCATION_FOR_EVERYONE, PURGE_REVOCATIONS,
};
use crate::outbound::relational::{
    DueRow, Edit, EditWrite, StoredTimestamp as _, clamped, due_by_inbox, row_count,
};

/// The key of the advisory lock with which only one node expires notifications at a time, in the schema `public`: the
/// bytes of `BelfryRt` as a number. Another schema has another key.
const EXPIRY_LOCK: i64 = i64::from_be_bytes(*b"BelfryRt");

const TRY_LOCK: &str = "SELECT pg_try_advisory_xact_lock($1)";

/// `created_at > '-infinity'` is true for all rows. It repeats the condition of the partial index, because PostgreSQL
/// uses the index only then.
const DUE: &str = "
    SELECT user_id, id FROM (
        (SELECT user_id, id FROM notifications
         WHERE expires_at <= $1 AND expires_at IS NOT NULL AND deleted_at IS NULL
         ORDER BY expires_at LIMIT $3)
        UNION
        (SELECT user_id, id FROM notifications
         WHERE created_at < $2 AND created_at > '-infinity' AND deleted_at IS NULL
         ORDER BY created_at LIMIT $3)
    ) due LIMIT $3";

/// Locks inboxes in the order of user ids, as every writer does. `history_floor` is the highest revision of a purged
/// tombstone: from an earlier revision, a device cannot be brought up to date.
const PURGE_DELETED: &str = "
    WITH old AS (
        SELECT user_id, id, revision FROM notifications
        WHERE deleted_at < $1 AND deleted_at IS NOT NULL
        ORDER BY deleted_at LIMIT $2
    ), floors AS (
        SELECT user_id, max(revision) AS revision FROM old GROUP BY user_id
    ), locked_inboxes AS (
        SELECT user_id FROM inboxes WHERE user_id IN (SELECT user_id FROM floors)
        ORDER BY user_id FOR UPDATE
    ), raised_floors AS (
        UPDATE inboxes inbox SET history_floor = greatest(inbox.history_floor, floors.revision)
        FROM floors JOIN locked_inboxes USING (user_id)
        WHERE inbox.user_id = floors.user_id
    )
    DELETE FROM notifications purged USING old
    WHERE purged.user_id = old.user_id AND purged.id = old.id";

#[async_trait]
impl Retention for PostgresStore {
    async fn expire(&self, cutoff: &ExpiryCutoff, limit: usize) -> Result<usize, PortError> {
        let wakeup = self.notifier.wakeup_on_drop();
        let key = self.installation().await?.lock_key(EXPIRY_LOCK);
        let deleted =
            with_retry!(self, async |connection| expire(connection, key, cutoff, limit).await)?;
        if deleted == 0 {
            wakeup.cancel();
        }
        Ok(deleted)
    }

    async fn purge_deleted(
        &self,
        deleted_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        self.purge(PURGE_DELETED, deleted_before, limit).await
    }

    async fn purge_idempotency_keys(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        self.purge(PURGE_IDEMPOTENCY_KEYS, made_before, limit).await
    }

    async fn purge_revocations(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let of_users = self.purge(PURGE_REVOCATIONS, made_before, limit).await?;
        let for_everyone = self.purge(PURGE_REVOCATION_FOR_EVERYONE, made_before, limit).await?;
        Ok(of_users + for_everyone)
    }
}

impl PostgresStore {
    async fn purge(
        &self,
        statement: &'static str,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let before = DateTime::from_domain(before)?;
        let query = || sqlx::query(statement).bind(before).bind(clamped(limit));
        Ok(row_count(self.execute(query).await?))
    }
}

async fn expire(
    connection: &mut PgConnection,
    lock_key: i64,
    cutoff: &ExpiryCutoff,
    limit: usize,
) -> Result<usize, PgFailure> {
    let mut transaction = connection.begin().await?;
    let has_lock: bool =
        sqlx::query_scalar(TRY_LOCK).bind(lock_key).fetch_one(&mut *transaction).await?;
    let deleted = if has_lock { delete_due(&mut transaction, cutoff, limit).await? } else { 0 };
    // Commit even if nothing has changed: a dropped transaction keeps its locks until the pool has rolled it back.
    transaction.commit().await?;
    Ok(deleted)
}

/// Deletes the notifications that are due, within a transaction that holds the lock for expiry. Returns their
/// number.
async fn delete_due(
    transaction: &mut PgConnection,
    cutoff: &ExpiryCutoff,
    limit: usize,
) -> Result<usize, PgFailure> {
    let rows: Vec<DueRow> = sqlx::query_as(DUE)
        .bind(DateTime::from_domain(cutoff.now)?)
        .bind(cutoff.created_before.map(DateTime::from_domain).transpose()?)
        .bind(clamped(limit))
        .fetch_all(&mut *transaction)
        .await?;
    let inboxes = due_by_inbox(rows)?;
    let users: Vec<_> = inboxes.keys().map(UserId::as_str).collect();
    sqlx::query(LOCK_INBOXES).bind(users).execute(&mut *transaction).await?;
    let edits: Vec<_> = inboxes
        .into_iter()
        .map(|(user, ids)| EditWrite::new(&user, Edit::Delete(ids), cutoff.now))
        .collect();
    // Skips notifications that a user has deleted since the read.
    let Attempt::Written(results) = EditGroup(&edits).attempt(transaction).await? else {
        return Ok(0);
    };
    let deleted = results.into_iter().map(|result| match result.event.map(|event| event.change) {
        Some(Change::Deleted { ids }) => ids.len(),
        _ => 0,
    });
    Ok(deleted.sum())
}
