use async_trait::async_trait;
use belfry_application::ports::{Erased, Erasure, PortError};
use belfry_application::trace::{self, TraceParent};
use belfry_domain::{EventName, UserId};
use sqlx::{Connection, PgConnection};

use super::failure::PgFailure;
use super::optimistic_write::{Attempt, OptimisticWrite};
use super::store::PostgresStore;
use crate::outbound::relational::statements::{
    ERASE_INBOX, ERASE_NOTIFICATIONS, RAISE_ERASED_REVISION,
};
use crate::outbound::relational::{EventRow, clamped, erased_event, events_about};
use crate::wire::EventForm;

const LOCK_INBOX: &str = "SELECT revision FROM inboxes WHERE user_id = $1 FOR UPDATE";

/// Makes the creation of an inbox that does not exist wait until the erasure has removed this row again. Without it,
/// the erasure could remove the notifications and events of an inbox that is created meanwhile, but not count them.
const RESERVE_INBOX: &str = "
    INSERT INTO inboxes (user_id, revision, history_floor) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING";

const ERASE_KEYS: &str = "
    DELETE FROM idempotency_keys
    WHERE caller = $1 OR (user_ids @> ARRAY[$1::text] AND $1 = ALL (user_ids))";

/// Removes the user's notifications from the keys that also led to notifications of other users.
const TRIM_KEYS: &str = "
    UPDATE idempotency_keys
    SET (user_ids, notification_ids) = (
        SELECT array_agg(user_id ORDER BY ordinal), array_agg(notification_id ORDER BY ordinal)
        FROM unnest(user_ids, notification_ids) WITH ORDINALITY
            AS result (user_id, notification_id, ordinal)
        WHERE user_id <> $1
    )
    WHERE user_ids @> ARRAY[$1::text]";

/// Locks the entries in the order in which the relay removes them, so that the two cannot deadlock. `$2` is
/// the name of the events to keep, or NULL to keep none.
const ERASE_EVENTS: &str = "
    WITH of_user AS (
        SELECT id FROM outbox WHERE user_id = $1 AND name IS DISTINCT FROM $2 ORDER BY id FOR UPDATE
    )
    DELETE FROM outbox entry USING of_user WHERE entry.id = of_user.id";

const EVENTS_WITHOUT_USER: &str =
    "SELECT id, event::text FROM outbox WHERE user_id IS NULL ORDER BY id";

const ERASE_EVENTS_BY_ID: &str = "DELETE FROM outbox WHERE id = ANY($1)";

const UNREADABLE_EVENTS: &str = "SELECT id, event::text FROM outbox_unreadable ORDER BY id";

const ERASE_UNREADABLE_EVENTS: &str = "DELETE FROM outbox_unreadable WHERE id = ANY($1)";

const INSERT_EVENT: &str = "
    INSERT INTO outbox (event, name, user_id, revision, traceparent)
    VALUES ($1::json, $2, $3, $4, $5)";

#[async_trait]
impl Erasure for PostgresStore {
    async fn erase(&self, user: &UserId) -> Result<Erased, PortError> {
        self.write(&EraseWrite { user, trace: trace::current() }).await
    }
}

/// The erasure of a user, in one transaction that first locks the inbox, or reserves it.
struct EraseWrite<'a> {
    user: &'a UserId,
    trace: Option<TraceParent>,
}

impl OptimisticWrite for EraseWrite<'_> {
    type Outcome = Erased;

    fn users(&self) -> Vec<&str> {
        vec![self.user.as_str()]
    }

    async fn attempt(&self, connection: &mut PgConnection) -> Result<Attempt<Erased>, PgFailure> {
        let user = self.user.as_str();
        let mut transaction = connection.begin().await?;
        let revision: Option<i64> =
            sqlx::query_scalar(LOCK_INBOX).bind(user).fetch_optional(&mut *transaction).await?;
        if revision.is_none() && execute(RESERVE_INBOX, user, &mut transaction).await? == 0 {
            // Another transaction has just created the inbox.
            transaction.rollback().await?;
            return Ok(Attempt::Conflict);
        }
        let erased = self.erase(revision, &mut transaction).await?;
        transaction.commit().await?;
        let is_changed = erased != Erased::default();
        Ok(if is_changed { Attempt::Written(erased) } else { Attempt::Unchanged(erased) })
    }
}

impl EraseWrite<'_> {
    /// Erases everything about the user. `revision` is that of the inbox, `None` if it is only reserved.
    async fn erase(
        &self,
        revision: Option<i64>,
        connection: &mut PgConnection,
    ) -> Result<Erased, PgFailure> {
        let user = self.user.as_str();
        let notifications = execute(ERASE_NOTIFICATIONS, user, connection).await?;
        let idempotency_keys = execute(ERASE_KEYS, user, connection).await?
            + execute(TRIM_KEYS, user, connection).await?;
        let events = self.erase_events(revision.is_some(), connection).await?;
        match revision {
            Some(revision) => self.end_inbox(revision, connection).await?,
            None => _ = execute(ERASE_INBOX, user, connection).await?,
        }
        Ok(Erased { inbox: revision.is_some(), notifications, idempotency_keys, events })
    }

    /// Removes the events of the user from the outbox. If there is no inbox, the event of an earlier erasure
    /// stays, because no later event replaces it.
    async fn erase_events(
        &self,
        has_inbox: bool,
        connection: &mut PgConnection,
    ) -> Result<u64, PgFailure> {
        let kept = (!has_inbox).then_some(EventName::ALL_ERASED);
        let query = sqlx::query(ERASE_EVENTS).bind(self.user.as_str()).bind(kept);
        let mut erased = query.execute(&mut *connection).await?.rows_affected();
        for (find, erase) in [
            (EVENTS_WITHOUT_USER, ERASE_EVENTS_BY_ID),
            (UNREADABLE_EVENTS, ERASE_UNREADABLE_EVENTS),
        ] {
            let rows: Vec<EventRow> = sqlx::query_as(find).fetch_all(&mut *connection).await?;
            let ids = events_about(self.user, &rows);
            if !ids.is_empty() {
                let query = sqlx::query(erase).bind(ids);
                erased += query.execute(&mut *connection).await?.rows_affected();
            }
        }
        Ok(erased)
    }

    /// Removes the inbox and adds the event. Comes last, because new inboxes of all users wait from here
    /// until the commit.
    async fn end_inbox(
        &self,
        revision: i64,
        connection: &mut PgConnection,
    ) -> Result<(), PgFailure> {
        let (epoch, revision): (String, i64) = sqlx::query_as(RAISE_ERASED_REVISION)
            .bind(revision.saturating_add(1))
            .fetch_one(&mut *connection)
            .await?;
        execute(ERASE_INBOX, self.user.as_str(), connection).await?;
        let event = erased_event(self.user, &epoch, revision)?;
        sqlx::query(INSERT_EVENT)
            .bind(EventForm::write(&event))
            .bind(event.name())
            .bind(self.user.as_str())
            .bind(clamped(event.revision.get()))
            .bind(self.trace.as_ref().map(TraceParent::as_str))
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Runs a statement whose only parameter is the user. Returns the number of affected rows.
async fn execute(
    statement: &'static str,
    user: &str,
    connection: &mut PgConnection,
) -> Result<u64, PgFailure> {
    Ok(sqlx::query(statement).bind(user).execute(connection).await?.rows_affected())
}
