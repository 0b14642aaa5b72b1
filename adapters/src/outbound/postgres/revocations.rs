use async_trait::async_trait;
use belfry_application::ports::{PortError, Revocation, RevocationCursor, Revocations};
use belfry_domain::Timestamp;
use chrono::{DateTime, Utc};

use super::PostgresStore;
use super::failure::Failure;
use super::inbox_repository::instant;
use crate::outbound::relational::{RevocationRow, StoredInstant as _, revocations};

const REVOKE: &str = "
    INSERT INTO revocations AS there (user_id, issued_before) VALUES ($1, $2)
    ON CONFLICT (user_id) DO UPDATE
    SET issued_before = greatest(there.issued_before, excluded.issued_before),
        written_at = clock_timestamp()
    RETURNING issued_before";

const SINCE: &str =
    "SELECT user_id, issued_before, written_at FROM revocations WHERE written_at > $1";

#[async_trait]
impl Revocations for PostgresStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let user = &revocation.user;
        let issued_before = instant(revocation.issued_before).map_err(Failure::from)?;
        let holds: DateTime<Utc> = self
            .with_connection(async |connection| {
                let query = sqlx::query_scalar(REVOKE).bind(user.as_str()).bind(issued_before);
                Ok(query.fetch_one(connection).await?)
            })
            .await?;
        Ok(Revocation { user: user.clone(), issued_before: holds.instant() })
    }

    async fn since(
        &self,
        mark: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let after = Timestamp::from_unix_millis(mark.map_or(0, |RevocationCursor(mark)| mark));
        let after = instant(after).map_err(Failure::from)?;
        let rows: Vec<RevocationRow<DateTime<Utc>>> = self
            .with_connection(async |connection| {
                Ok(sqlx::query_as(SINCE).bind(after).fetch_all(connection).await?)
            })
            .await?;
        Ok(revocations(rows, mark).map_err(Failure::from)?)
    }
}
