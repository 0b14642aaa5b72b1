use sqlx::PgConnection;

use super::failure::PgFailure;
use super::server::{check_schema, check_server};
use super::store::{PostgresStore, with_retry};
use crate::outbound::relational::NotReady;

/// A write that matches no row. It fails if the database is read-only, or if the role may not insert, update or
/// delete rows where the store does.
const TEST_WRITE: &str = "
    WITH updated_store AS (
        UPDATE store SET epoch = epoch WHERE false
    ), updated_inboxes AS (
        UPDATE inboxes SET revision = revision WHERE false
    ), new_inboxes AS (
        INSERT INTO inboxes (user_id) SELECT user_id FROM inboxes WHERE false
    ), erased_inboxes AS (
        DELETE FROM inboxes WHERE false
    ), updated_notifications AS (
        UPDATE notifications SET revision = revision WHERE false
    ), new_notifications AS (
        INSERT INTO notifications (user_id, id) SELECT user_id, id FROM notifications WHERE false
    ), purged_notifications AS (
        DELETE FROM notifications WHERE false
    ), outbox_entries AS (
        INSERT INTO outbox (event) SELECT event FROM outbox WHERE false
    ), published_entries AS (
        DELETE FROM outbox WHERE false
    ), unreadable_entries AS (
        INSERT INTO outbox_unreadable (event) SELECT event FROM outbox_unreadable WHERE false
    ), erased_entries AS (
        DELETE FROM outbox_unreadable WHERE false
    ), new_idempotency_keys AS (
        INSERT INTO idempotency_keys (caller) SELECT caller FROM idempotency_keys WHERE false
    ), trimmed_idempotency_keys AS (
        UPDATE idempotency_keys SET user_ids = user_ids WHERE false
    ), purged_idempotency_keys AS (
        DELETE FROM idempotency_keys WHERE false
    ), new_revocations AS (
        INSERT INTO revocations (user_id) SELECT user_id FROM revocations WHERE false
    ), updated_revocations AS (
        UPDATE revocations SET user_id = user_id WHERE false
    ), purged_revocations AS (
        DELETE FROM revocations WHERE false
    ), updated_revocation_state AS (
        UPDATE revocation_state SET last_number = last_number WHERE false
    )
    SELECT";

impl PostgresStore {
    /// Checks that the store can do its work: the server is supported, the schema is that of this
    /// version, the tables can be written, and no call has failed lately because of the database.
    pub async fn check(&self) -> Result<(), NotReady> {
        let recent = self.faults.recent();
        match (with_retry!(self, check), recent) {
            (Err(failure), _) => Err(failure.into()),
            (Ok(()), Some(fault)) => Err(PgFailure::Recent(fault).into()),
            (Ok(()), None) => Ok(()),
        }
    }
}

async fn check(connection: &mut PgConnection) -> Result<(), PgFailure> {
    check_server(connection).await?;
    check_schema(connection).await?;
    sqlx::query(TEST_WRITE).execute(connection).await?;
    Ok(())
}
