use async_trait::async_trait;
use belfry_application::ports::{PortError, Retention};
use belfry_domain::{ExpiryCutoff, Timestamp};

use super::edit::edit;
use super::store::SqliteStore;
use super::write::Work;
use crate::outbound::relational::statements::{
    PURGE_IDEMPOTENCY_KEYS, PURGE_REVOCATION_FOR_EVERYONE, PURGE_REVOCATIONS,
};
use crate::outbound::relational::{
    DueRow, Edit, EditWrite, StoredTimestamp as _, clamped, due_by_inbox, row_count,
};

const DUE: &str = "
    SELECT user_id, id FROM (
        SELECT * FROM (
            SELECT user_id, id FROM notifications
            WHERE expires_at <= ?1 AND expires_at IS NOT NULL AND deleted_at IS NULL
            ORDER BY expires_at LIMIT +?3
        )
        UNION
        SELECT * FROM (
            SELECT user_id, id FROM notifications
            WHERE created_at < ?2 AND deleted_at IS NULL
            ORDER BY created_at LIMIT +?3
        )
    ) LIMIT +?3";

const OLD_TOMBSTONES: &str = "
    SELECT user_id, id, revision FROM notifications
    WHERE deleted_at < ?1 AND deleted_at IS NOT NULL
    ORDER BY deleted_at LIMIT +?2";

const RAISE_FLOOR: &str =
    "UPDATE inboxes SET history_floor = max(history_floor, ?2) WHERE user_id = ?1";

const DELETE_TOMBSTONE: &str = "DELETE FROM notifications WHERE user_id = ?1 AND id = ?2";

#[async_trait]
impl Retention for SqliteStore {
    async fn expire(&self, due: &ExpiryCutoff, limit: usize) -> Result<usize, PortError> {
        let now = i64::from_domain(due.now)?;
        let created_before = due.created_before.map(i64::from_domain).transpose()?;
        self.write(async |connection| {
            let rows: Vec<DueRow> = sqlx::query_as(DUE)
                .bind(now)
                .bind(created_before)
                .bind(clamped(limit))
                .fetch_all(&mut *connection)
                .await?;
            let mut deleted = 0;
            for (user, ids) in due_by_inbox(rows)? {
                deleted += ids.len();
                let delete = EditWrite::new(&user, Edit::Delete(ids), due.now);
                edit(connection, &delete).await?;
            }
            Ok(if deleted == 0 { Work::Unchanged(0) } else { Work::Written(deleted) })
        })
        .await
    }

    async fn purge_deleted(
        &self,
        deleted_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let before = i64::from_domain(deleted_before)?;
        let work = self
            .in_transaction(async |connection| {
                let old: Vec<(String, String, i64)> = sqlx::query_as(OLD_TOMBSTONES)
                    .bind(before)
                    .bind(clamped(limit))
                    .fetch_all(&mut *connection)
                    .await?;
                for (user, id, revision) in &old {
                    let raise = sqlx::query(RAISE_FLOOR).bind(user).bind(revision);
                    raise.execute(&mut *connection).await?;
                    sqlx::query(DELETE_TOMBSTONE)
                        .bind(user)
                        .bind(id)
                        .execute(&mut *connection)
                        .await?;
                }
                Ok(if old.is_empty() { Work::Unchanged(0) } else { Work::Written(old.len()) })
            })
            .await?;
        Ok(work.outcome())
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

impl SqliteStore {
    async fn purge(
        &self,
        statement: &'static str,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let before = i64::from_domain(before)?;
        let work = self
            .in_transaction(async |connection| {
                let query = sqlx::query(statement).bind(before).bind(clamped(limit));
                Ok(Work::Written(row_count(query.execute(connection).await?.rows_affected())))
            })
            .await?;
        Ok(work.outcome())
    }
}
