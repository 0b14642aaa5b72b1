use async_trait::async_trait;
use belfry_application::ports::{PortError, Retention};
use belfry_domain::{Change as Told, ExpiryCutoff, Timestamp, UserId};
use sqlx::{Connection, PgConnection};

use super::PostgresStore;
use super::change::{Attempt, Change, LOCK};
use super::edit::Edit;
use super::failure::Failure;
use super::inbox_repository::instant;
use crate::outbound::relational::{DueRow, clamped, count, due_by_inbox};

/// The advisory lock of whoever removes what is due, so that nodes do not do each other's work: the
/// bytes of `BelfryRt` as a number.
const RETENTION_LOCK: i64 = i64::from_be_bytes(*b"BelfryRt");

/// Every instant is after `-infinity`; that says by which index.
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

/// Inboxes are locked in the order of their users, as all who lock several of them do.
const FORGET_DELETED: &str = "
    WITH old AS (
        SELECT user_id, id, revision FROM notifications
        WHERE deleted_at < $1 AND deleted_at IS NOT NULL
        ORDER BY deleted_at LIMIT $2
    ), floors AS (
        SELECT user_id, max(revision) AS revision FROM old GROUP BY user_id
    ), held AS (
        SELECT user_id FROM inboxes WHERE user_id IN (SELECT user_id FROM floors)
        ORDER BY user_id FOR UPDATE
    ), raised AS (
        UPDATE inboxes inbox SET history_floor = greatest(inbox.history_floor, floors.revision)
        FROM floors JOIN held USING (user_id)
        WHERE inbox.user_id = floors.user_id
    )
    DELETE FROM notifications gone USING old
    WHERE gone.user_id = old.user_id AND gone.id = old.id";

const FORGET_REQUESTS: &str = "
    DELETE FROM idempotency_keys WHERE (caller, key) IN (
        SELECT caller, key FROM idempotency_keys
        WHERE created_at < $1 ORDER BY created_at LIMIT $2
    )";

const FORGET_REVOCATIONS: &str = "
    DELETE FROM revocations WHERE user_id IN (
        SELECT user_id FROM revocations WHERE written_at < $1 ORDER BY written_at LIMIT $2
    )";

#[async_trait]
impl Retention for PostgresStore {
    async fn expire(&self, due: &ExpiryCutoff, limit: usize) -> Result<usize, PortError> {
        let call = self.waker.call_when_dropped();
        let deleted =
            self.with_connection(async |connection| expire(connection, due, limit).await).await?;
        if deleted == 0 {
            call.spare();
        }
        Ok(deleted)
    }

    async fn purge_deleted(
        &self,
        deleted_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        self.forget(FORGET_DELETED, deleted_before, limit).await
    }

    async fn purge_requests(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        self.forget(FORGET_REQUESTS, made_before, limit).await
    }

    async fn purge_revocations(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        self.forget(FORGET_REVOCATIONS, made_before, limit).await
    }
}

impl PostgresStore {
    async fn forget(
        &self,
        statement: &'static str,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let before = instant(before).map_err(Failure::from)?;
        let done = self
            .with_connection(async |connection| {
                let query = sqlx::query(statement).bind(before).bind(clamped(limit));
                Ok(query.execute(connection).await?)
            })
            .await?;
        Ok(count(done.rows_affected()))
    }
}

async fn expire(
    connection: &mut PgConnection,
    due: &ExpiryCutoff,
    limit: usize,
) -> Result<usize, Failure> {
    let mut transaction = connection.begin().await?;
    let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(RETENTION_LOCK)
        .fetch_one(&mut *transaction)
        .await?;
    if !alone {
        return Ok(0);
    }
    let rows: Vec<DueRow> = sqlx::query_as(DUE)
        .bind(instant(due.now)?)
        .bind(due.created_before.map(instant).transpose()?)
        .bind(clamped(limit))
        .fetch_all(&mut *transaction)
        .await?;
    let inboxes = due_by_inbox(rows)?;
    let users: Vec<_> = inboxes.keys().map(UserId::as_str).collect();
    sqlx::query(LOCK).bind(users).execute(&mut *transaction).await?;
    let mut deleted = 0;
    for (user, ids) in &inboxes {
        // What its user has deleted since is passed over.
        let edit = Edit::delete(user, ids, due.now)?;
        if let Attempt::Written(changed) = edit.attempt(&mut transaction).await?
            && let Some(Told::Deleted { ids }) = changed.event.map(|event| event.change)
        {
            deleted += ids.len();
        }
    }
    transaction.commit().await?;
    Ok(deleted)
}
