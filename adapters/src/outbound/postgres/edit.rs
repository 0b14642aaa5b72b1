use std::collections::BTreeSet;

use belfry_application::trace::{self, TraceParent};
use belfry_domain::{DomainEvent, InboxState, Marked, NotificationId, Revision, Timestamp, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::failure::PgFailure;
use super::optimistic_write::{Attempt, OptimisticWrite};
use crate::outbound::relational::statements::INBOX_STATE;
use crate::outbound::relational::{
    Edit, StoredTimestamp as _, TimestampOutOfRange, clamped, inbox_state, non_negative, without,
};
use crate::wire::EventForm;

/// An edit of one user's inbox.
#[derive(Debug)]
pub(super) struct EditWrite<'a> {
    user: &'a UserId,
    edit: Edit<'a>,
    at: Timestamp,
    /// `at` as a column value.
    stored_at: DateTime<Utc>,
    trace: Option<TraceParent>,
}

impl<'a> EditWrite<'a> {
    pub(super) fn new(
        user: &'a UserId,
        edit: Edit<'a>,
        at: Timestamp,
    ) -> Result<Self, TimestampOutOfRange> {
        let stored_at = DateTime::from_domain(at)?;
        Ok(Self { user, edit, at, stored_at, trace: trace::current() })
    }
}

/// The state of an inbox, which of the notifications `$2` it has, and which it never had. `$3`
/// selects only unread ones. One statement, because a notification that is created between two
/// statements would be neither found nor unknown.
const FIND: &str = "
    SELECT inbox.revision, inbox.unread, found.ids, found.unread_ones, found.unknown
    FROM inboxes inbox CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(n.id ORDER BY n.created_revision) FILTER (WHERE n.fits), '{}') AS ids,
               count(*) FILTER (WHERE n.fits AND n.read_at IS NULL) AS unread_ones,
               coalesce(array_agg(wanted.id) FILTER (WHERE n.id IS NULL), '{}') AS unknown
        FROM unnest($2::text[]) AS wanted (id) LEFT JOIN LATERAL (
            SELECT one.id, one.created_revision, one.read_at,
                   one.deleted_at IS NULL AND (one.read_at IS NULL OR NOT $3) AS fits
            FROM notifications one
            WHERE one.user_id = inbox.user_id AND one.id = wanted.id OFFSET 0
        ) n ON true
    ) found
    WHERE inbox.user_id = $1";

/// Takes the inbox from revision `$2` to the next one, with `$3` unread, marks the notifications
/// `$8` as read at `$7`, and adds the event `$4` with the name `$5` and the trace `$6` to the outbox.
/// Returns whether it did. If the inbox is at another revision or is locked, nothing happens.
///
/// Every part depends on `guard`, which locks the inbox row and reads its newest version. If that
/// version has the revision that an earlier statement read, nothing has changed the inbox since
/// then, and this statement's snapshot of its notifications is current.
///
/// Each notification is looked up by itself (`OFFSET 0` keeps the subquery), regardless of
/// PostgreSQL's estimate of the inbox's size: in an inbox that it estimates to be small it would
/// read all rows.
const MARK_READ: &str = "
    WITH locked_inbox AS (
        SELECT revision FROM inboxes WHERE user_id = $1 FOR UPDATE SKIP LOCKED
    ), guard AS (
        SELECT coalesce((SELECT revision = $2 FROM locked_inbox), false) AS unchanged
    ), updated_inbox AS (
        UPDATE inboxes SET revision = $2 + 1, unread = $3
        WHERE user_id = $1 AND (SELECT unchanged FROM guard)
    ), updated_notifications AS (
        UPDATE notifications n SET revision = $2 + 1, read_at = $7
        FROM unnest($8::text[]) AS named (id) CROSS JOIN LATERAL (
            SELECT ctid FROM notifications one
            WHERE one.user_id = $1 AND one.id = named.id OFFSET 0
        ) target
        WHERE n.ctid = target.ctid
        AND (SELECT unchanged FROM guard)
    ), outbox_entry AS (
        INSERT INTO outbox (event, name, user_id, revision, traceparent)
        SELECT $4::json, $5, $1, $2 + 1, $6 WHERE (SELECT unchanged FROM guard)
    )
    SELECT unchanged FROM guard";

/// Like [`MARK_READ`], for all unread notifications.
const MARK_ALL_READ: &str = "
    WITH locked_inbox AS (
        SELECT revision FROM inboxes WHERE user_id = $1 FOR UPDATE SKIP LOCKED
    ), guard AS (
        SELECT coalesce((SELECT revision = $2 FROM locked_inbox), false) AS unchanged
    ), updated_inbox AS (
        UPDATE inboxes SET revision = $2 + 1, unread = $3
        WHERE user_id = $1 AND (SELECT unchanged FROM guard)
    ), updated_notifications AS (
        UPDATE notifications SET revision = $2 + 1, read_at = $7
        WHERE user_id = $1 AND deleted_at IS NULL AND read_at IS NULL
        AND (SELECT unchanged FROM guard)
    ), outbox_entry AS (
        INSERT INTO outbox (event, name, user_id, revision, traceparent)
        SELECT $4::json, $5, $1, $2 + 1, $6 WHERE (SELECT unchanged FROM guard)
    )
    SELECT unchanged FROM guard";

/// Like [`MARK_READ`], but deletes: it leaves a tombstone without the contents. The word `deleted`
/// fills the columns that must have a value.
const DELETE: &str = "
    WITH locked_inbox AS (
        SELECT revision FROM inboxes WHERE user_id = $1 FOR UPDATE SKIP LOCKED
    ), guard AS (
        SELECT coalesce((SELECT revision = $2 FROM locked_inbox), false) AS unchanged
    ), updated_inbox AS (
        UPDATE inboxes SET revision = $2 + 1, unread = $3
        WHERE user_id = $1 AND (SELECT unchanged FROM guard)
    ), updated_notifications AS (
        UPDATE notifications n SET revision = $2 + 1, deleted_at = $7, kind = 'deleted',
            title = 'deleted', message = '', link = NULL, data = NULL, priority = 'normal',
            expires_at = NULL
        FROM unnest($8::text[]) AS named (id) CROSS JOIN LATERAL (
            SELECT ctid FROM notifications one
            WHERE one.user_id = $1 AND one.id = named.id OFFSET 0
        ) target
        WHERE n.ctid = target.ctid
        AND (SELECT unchanged FROM guard)
    ), outbox_entry AS (
        INSERT INTO outbox (event, name, user_id, revision, traceparent)
        SELECT $4::json, $5, $1, $2 + 1, $6 WHERE (SELECT unchanged FROM guard)
    )
    SELECT unchanged FROM guard";

/// An inbox and the notifications to change.
struct Found {
    state: InboxState,
    ids: Vec<String>,
    unread: u64,
    unknown: Vec<String>,
}

/// The row that [`FIND`] returns.
#[derive(sqlx::FromRow)]
struct FoundRow {
    revision: i64,
    unread: i64,
    ids: Vec<String>,
    unread_ones: i64,
    unknown: Vec<String>,
}

impl FoundRow {
    fn parse(self) -> Result<Found, PgFailure> {
        let Self { revision, unread, ids, unread_ones, unknown } = self;
        let state = inbox_state(revision, unread)?;
        Ok(Found { state, ids, unread: non_negative(unread_ones)?, unknown })
    }
}

impl Found {
    fn changes_nothing(&self) -> bool {
        self.ids.is_empty() && self.unread == 0
    }
}

impl EditWrite<'_> {
    async fn find(&self, connection: &mut PgConnection) -> Result<Option<Found>, PgFailure> {
        let (ids, only_unread) = match self.edit {
            Edit::MarkRead(ids) => (ids, true),
            Edit::Delete(ids) => (ids, false),
            Edit::MarkAllRead => return self.find_all(connection).await,
        };
        let ids: BTreeSet<_> = ids.iter().map(NotificationId::as_str).collect();
        let row: Option<FoundRow> = sqlx::query_as(FIND)
            .bind(self.user.as_str())
            .bind(ids.into_iter().collect::<Vec<_>>())
            .bind(only_unread)
            .fetch_optional(connection)
            .await?;
        row.map(FoundRow::parse).transpose()
    }

    /// All unread notifications. Their ids are not needed.
    async fn find_all(&self, connection: &mut PgConnection) -> Result<Option<Found>, PgFailure> {
        let row: Option<(i64, i64)> =
            sqlx::query_as(INBOX_STATE).bind(self.user.as_str()).fetch_optional(connection).await?;
        let Some((revision, unread)) = row else {
            return Ok(None);
        };
        let state = inbox_state(revision, unread)?;
        let unread = state.unread.get();
        Ok(Some(Found { state, ids: Vec::new(), unread, unknown: Vec::new() }))
    }

    /// The ids to mark as read that the inbox never had, without duplicates, in their order.
    /// Without an inbox these are all ids.
    fn unknown(&self, found: Option<&Found>) -> Vec<NotificationId> {
        let Edit::MarkRead(ids) = self.edit else { return Vec::new() };
        let Some(found) = found else { return without(ids, []) };
        let mut unknown: BTreeSet<_> = found.unknown.iter().map(String::as_str).collect();
        ids.iter().filter(|id| unknown.remove(id.as_str())).cloned().collect()
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        from: Revision,
        ids: &[String],
        event: &DomainEvent,
    ) -> Result<bool, PgFailure> {
        let statement = match self.edit {
            Edit::MarkRead(_) => MARK_READ,
            Edit::MarkAllRead => MARK_ALL_READ,
            Edit::Delete(_) => DELETE,
        };
        let query = sqlx::query_scalar(statement)
            .bind(self.user.as_str())
            .bind(clamped(from.get()))
            .bind(clamped(event.unread.get()))
            .bind(EventForm::write(event))
            .bind(event.name())
            .bind(self.trace.as_ref().map(TraceParent::as_str))
            .bind(self.stored_at);
        let query = match self.edit {
            Edit::MarkAllRead => query,
            Edit::MarkRead(_) | Edit::Delete(_) => query.bind(ids),
        };
        Ok(query.fetch_one(connection).await?)
    }
}

impl OptimisticWrite for EditWrite<'_> {
    type Outcome = Marked;

    fn users(&self) -> Vec<&str> {
        vec![self.user.as_str()]
    }

    async fn attempt(&self, connection: &mut PgConnection) -> Result<Attempt<Marked>, PgFailure> {
        let found = self.find(connection).await?;
        let unknown = self.unknown(found.as_ref());
        let Some(found) = found.filter(|found| !found.changes_nothing()) else {
            return Ok(Attempt::Unchanged(Marked { event: None, unknown }));
        };
        let ids = found.ids.iter().map(String::as_str);
        let event = self.edit.event(self.user, found.state, ids, found.unread, self.at)?;
        let from = found.state.revision;
        let inbox_unchanged = self.write(connection, from, &found.ids, &event).await?;
        Ok(Attempt::written(inbox_unchanged, Marked { event: Some(event), unknown }))
    }
}
