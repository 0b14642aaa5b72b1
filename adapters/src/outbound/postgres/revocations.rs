use async_trait::async_trait;
use belfry_application::ports::{PortError, Revocation, RevocationCursor, Revocations};
use belfry_domain::Timestamp;
use chrono::{DateTime, Utc};

use super::store::PostgresStore;
use crate::outbound::relational::statements::REVOCATIONS_SINCE;
use crate::outbound::relational::{RevocationRow, StoredTimestamp as _, revocations};

const REVOKE: &str = "
    INSERT INTO revocations AS existing (user_id, issued_before) VALUES ($1, $2)
    ON CONFLICT (user_id) DO UPDATE
    SET issued_before = greatest(existing.issued_before, excluded.issued_before),
        written_at = clock_timestamp()
    RETURNING issued_before";

#[async_trait]
impl Revocations for PostgresStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let user = &revocation.user;
        let issued_before = DateTime::from_domain(revocation.issued_before)?;
        let query = || sqlx::query_scalar(REVOKE).bind(user.as_str()).bind(issued_before);
        let in_force: DateTime<Utc> = self.fetch_scalar(query).await?;
        Ok(Revocation { user: user.clone(), issued_before: in_force.to_domain() })
    }

    async fn since(
        &self,
        mark: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let after = Timestamp::from_unix_millis(mark.map_or(0, |RevocationCursor(mark)| mark));
        let after = DateTime::from_domain(after)?;
        let query = || sqlx::query_as(REVOCATIONS_SINCE).bind(after);
        let rows: Vec<RevocationRow<DateTime<Utc>>> = self.fetch_all(query).await?;
        Ok(revocations(rows, mark)?)
    }
}
