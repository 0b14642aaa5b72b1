use async_trait::async_trait;
use belfry_application::ports::{PortError, Revocation, RevocationCursor, Revocations};

use super::SqliteStore;
use super::failure::Failure;
use super::inbox_repository::millis;
use super::write::Work;
use crate::outbound::relational::{RevocationRow, StoredInstant as _, revocations};

const REVOKE: &str = "
    INSERT INTO revocations (user_id, issued_before) VALUES (?1, ?2)
    ON CONFLICT (user_id) DO UPDATE
    SET issued_before = max(issued_before, excluded.issued_before),
        written_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    RETURNING issued_before";

const SINCE: &str =
    "SELECT user_id, issued_before, written_at FROM revocations WHERE written_at > ?1";

#[async_trait]
impl Revocations for SqliteStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let user = &revocation.user;
        let issued_before = millis(revocation.issued_before).map_err(Failure::from)?;
        let work = self
            .in_transaction(async |connection| {
                let query = sqlx::query_scalar(REVOKE).bind(user.as_str()).bind(issued_before);
                Ok(Work::Written(query.fetch_one(connection).await?))
            })
            .await?;
        let holds: i64 = work.outcome();
        Ok(Revocation { user: user.clone(), issued_before: holds.instant() })
    }

    async fn since(
        &self,
        mark: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let rows: Vec<RevocationRow<i64>> = sqlx::query_as(SINCE)
            .bind(mark.map_or(0, |RevocationCursor(mark)| mark))
            .fetch_all(&self.readers)
            .await
            .map_err(Failure::from)?;
        Ok(revocations(rows, mark).map_err(Failure::from)?)
    }
}
