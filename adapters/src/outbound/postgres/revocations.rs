use async_trait::async_trait;
use belfry_application::ports::{PortError, Revocation, RevocationCursor, Revocations, TokenOwner};
use chrono::{DateTime, Utc};

use super::failure::PgFailure;
use super::store::PostgresStore;
use crate::outbound::relational::statements::REVOCATIONS_AFTER;
use crate::outbound::relational::{RevocationRows, StoredTimestamp as _};

/// A trigger sets the column `number`.
const REVOKE: &str = "
    INSERT INTO revocations AS existing (user_id, issued_before) VALUES ($1, $2)
    ON CONFLICT (user_id) DO UPDATE
    SET issued_before = greatest(existing.issued_before, excluded.issued_before),
        written_at = clock_timestamp()
    RETURNING issued_before";

/// `greatest` ignores NULL.
const REVOKE_EVERYONE: &str = "
    UPDATE revocation_state
    SET last_number = last_number + 1,
        everyone_issued_before = greatest(everyone_issued_before, $1),
        everyone_written_at = clock_timestamp()
    RETURNING everyone_issued_before";

#[async_trait]
impl Revocations for PostgresStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let Revocation { owner, issued_before } = revocation;
        let issued_before = DateTime::from_domain(*issued_before)?;
        let query = || match owner {
            TokenOwner::User(user) => {
                sqlx::query_scalar(REVOKE).bind(user.as_str()).bind(issued_before)
            }
            TokenOwner::Everyone => sqlx::query_scalar(REVOKE_EVERYONE).bind(issued_before),
        };
        let in_force: DateTime<Utc> = self.fetch_scalar(query).await?;
        Ok(Revocation { owner: owner.clone(), issued_before: in_force.to_domain() })
    }

    async fn since(
        &self,
        cursor: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let start = RevocationRows::<DateTime<Utc>>::START;
        let after = cursor.map_or(start, |RevocationCursor(number)| number);
        let rows = self.revocations_after(after).await?;
        let rows =
            if rows.last_number()? < after { self.revocations_after(start).await? } else { rows };
        Ok(rows.decode()?)
    }
}

impl PostgresStore {
    async fn revocations_after(
        &self,
        number: i64,
    ) -> Result<RevocationRows<DateTime<Utc>>, PgFailure> {
        let query = || sqlx::query_as(REVOCATIONS_AFTER).bind(number);
        Ok(RevocationRows::new(self.fetch_all(query).await?))
    }
}
