use async_trait::async_trait;
use belfry_application::ports::{PortError, Revocation, RevocationCursor, Revocations, TokenOwner};

use super::failure::SqliteFailure;
use super::store::SqliteStore;
use super::write::Work;
use crate::outbound::relational::statements::REVOCATIONS_AFTER;
use crate::outbound::relational::{RevocationRows, StoredTimestamp as _};

const NEXT_NUMBER: &str =
    "UPDATE revocation_state SET last_number = last_number + 1 RETURNING last_number";

const REVOKE: &str = "
    INSERT INTO revocations (user_id, issued_before, number) VALUES (?1, ?2, ?3)
    ON CONFLICT (user_id) DO UPDATE
    SET issued_before = max(issued_before, excluded.issued_before),
        number = excluded.number,
        written_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    RETURNING issued_before";

const REVOKE_EVERYONE: &str = "
    UPDATE revocation_state
    SET last_number = last_number + 1,
        everyone_issued_before = max(coalesce(everyone_issued_before, ?1), ?1),
        everyone_written_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    RETURNING everyone_issued_before";

#[async_trait]
impl Revocations for SqliteStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let Revocation { owner, issued_before } = revocation;
        let issued_before = i64::from_domain(*issued_before)?;
        let work = self
            .in_transaction(async |connection| {
                let query = match owner {
                    TokenOwner::Everyone => sqlx::query_scalar(REVOKE_EVERYONE).bind(issued_before),
                    TokenOwner::User(user) => {
                        let number: i64 =
                            sqlx::query_scalar(NEXT_NUMBER).fetch_one(&mut *connection).await?;
                        sqlx::query_scalar(REVOKE)
                            .bind(user.as_str())
                            .bind(issued_before)
                            .bind(number)
                    }
                };
                Ok(Work::Written(query.fetch_one(connection).await?))
            })
            .await?;
        let in_force: i64 = work.outcome();
        Ok(Revocation { owner: owner.clone(), issued_before: in_force.to_domain() })
    }

    async fn since(
        &self,
        cursor: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let start = RevocationRows::<i64>::START;
        let after = cursor.map_or(start, |RevocationCursor(number)| number);
        let rows = self.revocations_after(after).await?;
        let rows =
            if rows.last_number()? < after { self.revocations_after(start).await? } else { rows };
        Ok(rows.decode()?)
    }
}

impl SqliteStore {
    async fn revocations_after(&self, number: i64) -> Result<RevocationRows<i64>, SqliteFailure> {
        let query = sqlx::query_as(REVOCATIONS_AFTER).bind(number);
        Ok(RevocationRows::new(self.fetch_all(query).await?))
    }
}
