use async_trait::async_trait;
use belfry_application::ports::{PortError, Revocation, RevocationCursor, Revocations};

use super::store::SqliteStore;
use super::write::Work;
use crate::outbound::relational::statements::REVOCATIONS_SINCE;
use crate::outbound::relational::{RevocationRow, StoredTimestamp as _, revocations};

const REVOKE: &str = "
    INSERT INTO revocations (user_id, issued_before) VALUES (?1, ?2)
    ON CONFLICT (user_id) DO UPDATE
    SET issued_before = max(issued_before, excluded.issued_before),
        written_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    RETURNING issued_before";

#[async_trait]
impl Revocations for SqliteStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let user = &revocation.user;
        let issued_before = i64::from_domain(revocation.issued_before)?;
        let work = self
            .in_transaction(async |connection| {
                let query = sqlx::query_scalar(REVOKE).bind(user.as_str()).bind(issued_before);
                Ok(Work::Written(query.fetch_one(connection).await?))
            })
            .await?;
        let in_force: i64 = work.outcome();
        Ok(Revocation { user: user.clone(), issued_before: in_force.to_domain() })
    }

    async fn since(
        &self,
        mark: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let query =
            sqlx::query_as(REVOCATIONS_SINCE).bind(mark.map_or(0, |RevocationCursor(mark)| mark));
        let rows: Vec<RevocationRow<i64>> = self.fetch_all(query).await?;
        Ok(revocations(rows, mark)?)
    }
}
