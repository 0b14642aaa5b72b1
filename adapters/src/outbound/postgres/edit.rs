use std::collections::BTreeSet;

use belfry_application::trace::TraceParent;
use belfry_domain::{DomainEvent, InboxState, Marked, NotificationId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::failure::PgFailure;
use super::optimistic_write::{Attempt, OptimisticWrite};
use crate::outbound::relational::{
    Edit, EditWrite, StoredTimestamp as _, clamped, inbox_state, non_negative, without,
};
use crate::wire::EventForm;

/// Edits of different users' inboxes, all of the same kind.
#[derive(Debug)]
pub(super) struct EditGroup<'a>(pub(super) &'a [EditWrite]);

/// For each inbox of the users `$1` that exists: its position in `$1`, its state, which of the notifications
/// `$2` (a JSON array for each user) it has, and which it never had. `$3` selects only unread ones. One
/// statement, because a notification that is created between two statements would be neither found nor
/// unknown.
const FIND: &str = "
    SELECT given.position, inbox.revision, inbox.unread, found.ids, found.unread_ones, found.unknown
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given (user_id, wanted, position)
    CROSS JOIN LATERAL (
        SELECT revision, unread FROM inboxes WHERE user_id = given.user_id OFFSET 0
    ) inbox
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(n.id ORDER BY n.created_revision) FILTER (WHERE n.fits), '{}') AS ids,
               count(*) FILTER (WHERE n.fits AND n.read_at IS NULL) AS unread_ones,
               coalesce(array_agg(wanted.id) FILTER (WHERE n.id IS NULL), '{}') AS unknown
        FROM json_array_elements_text(given.wanted::json) AS wanted (id) LEFT JOIN LATERAL (
            SELECT one.id, one.created_revision, one.read_at,
                   one.deleted_at IS NULL AND (one.read_at IS NULL OR NOT $3) AS fits
            FROM notifications one
            WHERE one.user_id = given.user_id AND one.id = wanted.id OFFSET 0
        ) n ON true
    ) found";

/// Like [`FIND`], for all unread notifications. Their ids are not needed.
const FIND_ALL_UNREAD: &str = "
    SELECT given.position, inbox.revision, inbox.unread, '{}'::text[] AS ids,
        inbox.unread AS unread_ones, '{}'::text[] AS unknown
    FROM unnest($1::text[]) WITH ORDINALITY AS given (user_id, position)
    CROSS JOIN LATERAL (
        SELECT revision, unread FROM inboxes WHERE user_id = given.user_id OFFSET 0
    ) inbox";

/// Takes each inbox of the users `$1` from its revision in `$2` to the next one, with the unread count in
/// `$3`. Adds the events `$4` with the names `$5` and the traces `$6` to the outbox. Marks the notifications
/// `$8` and `$9` (user and id of each) as read at the times in `$7`, one for each inbox. Returns whether it did.
/// If one of the inboxes is at another revision or is locked, nothing happens. `$1` is sorted.
///
/// Every part depends on `guard`, which locks the inbox rows and reads their newest versions. If those
/// have the revisions that an earlier statement read, nothing has changed the inboxes since
/// then, and this statement's snapshot of their notifications is current.
///
/// Each notification is looked up by itself (`OFFSET 0` keeps the subquery), regardless of
/// PostgreSQL's estimate of the inbox's size: in an inbox that it estimates to be small it would
/// read all rows.
const MARK_READ: &str = "
    WITH locked_inboxes AS (
        SELECT user_id, revision FROM inboxes WHERE user_id = ANY($1)
        ORDER BY user_id FOR UPDATE SKIP LOCKED
    ), guard AS (
        SELECT coalesce(array_agg(revision ORDER BY user_id), '{}') = $2 AS unchanged
        FROM locked_inboxes
    ), edited AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                $7::timestamptz[]) WITH ORDINALITY
            AS given (user_id, revision, unread, event, name, trace, at, ordinal)
        WHERE (SELECT unchanged FROM guard)
    ), updated_inboxes AS (
        UPDATE inboxes inbox SET revision = edited.revision + 1, unread = edited.unread
        FROM edited WHERE inbox.user_id = edited.user_id
    ), updated_notifications AS (
        UPDATE notifications n SET revision = target.new_revision, read_at = target.at
        FROM (
            SELECT one.ctid AS row_id, edited.revision + 1 AS new_revision, edited.at
            FROM edited JOIN unnest($8::text[], $9::text[]) AS named (user_id, id) USING (user_id)
            CROSS JOIN LATERAL (
                SELECT ctid FROM notifications one
                WHERE one.user_id = named.user_id AND one.id = named.id OFFSET 0
            ) one
        ) target
        WHERE n.ctid = target.row_id
    ), outbox_entries AS (
        INSERT INTO outbox (event, name, user_id, revision, traceparent)
        SELECT event::json, name, user_id, revision + 1, trace FROM edited ORDER BY ordinal
    )
    SELECT unchanged FROM guard";

/// Like [`MARK_READ`], for all unread notifications of the inboxes.
const MARK_ALL_READ: &str = "
    WITH locked_inboxes AS (
        SELECT user_id, revision FROM inboxes WHERE user_id = ANY($1)
        ORDER BY user_id FOR UPDATE SKIP LOCKED
    ), guard AS (
        SELECT coalesce(array_agg(revision ORDER BY user_id), '{}') = $2 AS unchanged
        FROM locked_inboxes
    ), edited AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                $7::timestamptz[]) WITH ORDINALITY
            AS given (user_id, revision, unread, event, name, trace, at, ordinal)
        WHERE (SELECT unchanged FROM guard)
    ), updated_inboxes AS (
        UPDATE inboxes inbox SET revision = edited.revision + 1, unread = edited.unread
        FROM edited WHERE inbox.user_id = edited.user_id
    ), updated_notifications AS (
        UPDATE notifications n SET revision = target.new_revision, read_at = target.at
        FROM (
            SELECT one.ctid AS row_id, edited.revision + 1 AS new_revision, edited.at
            FROM edited CROSS JOIN LATERAL (
                SELECT ctid FROM notifications one
                WHERE one.user_id = edited.user_id AND one.deleted_at IS NULL AND one.read_at IS NULL
                OFFSET 0
            ) one
        ) target
        WHERE n.ctid = target.row_id
    ), outbox_entries AS (
        INSERT INTO outbox (event, name, user_id, revision, traceparent)
        SELECT event::json, name, user_id, revision + 1, trace FROM edited ORDER BY ordinal
    )
    SELECT unchanged FROM guard";

/// Like [`MARK_READ`], but deletes: it leaves tombstones without the contents. The word `deleted`
/// fills the columns that must have a value.
const DELETE: &str = "
    WITH locked_inboxes AS (
        SELECT user_id, revision FROM inboxes WHERE user_id = ANY($1)
        ORDER BY user_id FOR UPDATE SKIP LOCKED
    ), guard AS (
        SELECT coalesce(array_agg(revision ORDER BY user_id), '{}') = $2 AS unchanged
        FROM locked_inboxes
    ), edited AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                $7::timestamptz[]) WITH ORDINALITY
            AS given (user_id, revision, unread, event, name, trace, at, ordinal)
        WHERE (SELECT unchanged FROM guard)
    ), updated_inboxes AS (
        UPDATE inboxes inbox SET revision = edited.revision + 1, unread = edited.unread
        FROM edited WHERE inbox.user_id = edited.user_id
    ), updated_notifications AS (
        UPDATE notifications n SET revision = target.new_revision, deleted_at = target.at,
            kind = 'deleted', title = 'deleted', message = '', link = NULL, data = NULL,
            priority = 'normal', expires_at = NULL
        FROM (
            SELECT one.ctid AS row_id, edited.revision + 1 AS new_revision, edited.at
            FROM edited JOIN unnest($8::text[], $9::text[]) AS named (user_id, id) USING (user_id)
            CROSS JOIN LATERAL (
                SELECT ctid FROM notifications one
                WHERE one.user_id = named.user_id AND one.id = named.id OFFSET 0
            ) one
        ) target
        WHERE n.ctid = target.row_id
    ), outbox_entries AS (
        INSERT INTO outbox (event, name, user_id, revision, traceparent)
        SELECT event::json, name, user_id, revision + 1, trace FROM edited ORDER BY ordinal
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
    /// The position of the user, from 1.
    position: i64,
    revision: i64,
    unread: i64,
    ids: Vec<String>,
    unread_ones: i64,
    unknown: Vec<String>,
}

impl FoundRow {
    fn parse(self) -> Result<Found, PgFailure> {
        let Self { revision, unread, ids, unread_ones, unknown, .. } = self;
        let state = inbox_state(revision, unread)?;
        Ok(Found { state, ids, unread: non_negative(unread_ones)?, unknown })
    }
}

impl Found {
    fn changes_nothing(&self) -> bool {
        self.ids.is_empty() && self.unread == 0
    }
}

/// The changes of a group, by column.
#[derive(Default)]
struct EditColumns<'a> {
    users: Vec<&'a str>,
    revisions_before: Vec<i64>,
    unread: Vec<i64>,
    events: Vec<String>,
    names: Vec<&'static str>,
    traces: Vec<Option<&'a str>>,
    at: Vec<DateTime<Utc>>,
    /// The users and ids of the notifications to change.
    named_users: Vec<&'a str>,
    named_ids: Vec<String>,
}

impl<'a> EditColumns<'a> {
    fn push(&mut self, write: &'a EditWrite, at: DateTime<Utc>, found: Found, event: &DomainEvent) {
        let user = write.user.as_str();
        self.users.push(user);
        self.revisions_before.push(clamped(found.state.revision.get()));
        self.unread.push(clamped(event.unread.get()));
        self.events.push(EventForm::write(event));
        self.names.push(event.name());
        self.traces.push(write.trace.as_ref().map(TraceParent::as_str));
        self.at.push(at);
        self.named_users.extend(std::iter::repeat_n(user, found.ids.len()));
        self.named_ids.extend(found.ids);
    }
}

/// The ids to mark as read that the inbox never had, without duplicates, in their order.
/// Without an inbox these are all ids.
fn unknown(write: &EditWrite, found: Option<&Found>) -> Vec<NotificationId> {
    let Edit::MarkRead(ids) = &write.edit else { return Vec::new() };
    let Some(found) = found else { return without(ids, []) };
    let mut unknown: BTreeSet<_> = found.unknown.iter().map(String::as_str).collect();
    ids.iter().filter(|id| unknown.remove(id.as_str())).cloned().collect()
}

impl EditGroup<'_> {
    /// The state of each inbox, in the order of the writes; `None` for one that does not exist.
    async fn find(&self, connection: &mut PgConnection) -> Result<Vec<Option<Found>>, PgFailure> {
        let users: Vec<_> = self.0.iter().map(|write| write.user.as_str()).collect();
        let wanted: Vec<_> = self.0.iter().filter_map(|write| wanted_ids(&write.edit)).collect();
        let only_unread = self.0.iter().any(|write| matches!(write.edit, Edit::MarkRead(_)));
        let rows: Vec<FoundRow> = if wanted.is_empty() {
            sqlx::query_as(FIND_ALL_UNREAD).bind(users).fetch_all(connection).await?
        } else {
            let find = sqlx::query_as(FIND).bind(users).bind(wanted).bind(only_unread);
            find.fetch_all(connection).await?
        };
        let mut found: Vec<_> = self.0.iter().map(|_| None).collect();
        for row in rows {
            let position = usize::try_from(row.position - 1).ok();
            if let Some(slot) = position.and_then(|position| found.get_mut(position)) {
                *slot = Some(row.parse()?);
            }
        }
        Ok(found)
    }

    async fn write(
        &self,
        columns: EditColumns<'_>,
        connection: &mut PgConnection,
    ) -> Result<bool, PgFailure> {
        let (statement, names_rows) = match self.0.first().map(|write| &write.edit) {
            Some(Edit::MarkRead(_)) => (MARK_READ, true),
            Some(Edit::Delete(_)) => (DELETE, true),
            Some(Edit::MarkAllRead) | None => (MARK_ALL_READ, false),
        };
        let query = sqlx::query_scalar(statement)
            .bind(columns.users)
            .bind(columns.revisions_before)
            .bind(columns.unread)
            .bind(columns.events)
            .bind(columns.names)
            .bind(columns.traces)
            .bind(columns.at);
        let query = if names_rows {
            query.bind(columns.named_users).bind(columns.named_ids)
        } else {
            query
        };
        Ok(query.fetch_one(connection).await?)
    }
}

/// The ids of an edit without duplicates, as a JSON array. `None` if the edit names none.
fn wanted_ids(edit: &Edit) -> Option<String> {
    match edit {
        Edit::MarkRead(ids) | Edit::Delete(ids) => {
            let ids: BTreeSet<_> = ids.iter().map(NotificationId::as_str).collect();
            Some(serde_json::to_string(&ids).expect("strings always serialize"))
        }
        Edit::MarkAllRead => None,
    }
}

impl OptimisticWrite for EditGroup<'_> {
    type Outcome = Vec<Marked>;

    fn users(&self) -> Vec<&str> {
        let users: BTreeSet<_> = self.0.iter().map(|write| write.user.as_str()).collect();
        users.into_iter().collect()
    }

    async fn attempt(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Attempt<Vec<Marked>>, PgFailure> {
        let times = self.0.iter().map(|write| DateTime::from_domain(write.at));
        let times: Vec<_> = times.collect::<Result<_, _>>()?;
        let found = self.find(connection).await?;
        let mut outcomes = Vec::with_capacity(self.0.len());
        let mut changed = Vec::new();
        for ((write, at), found) in self.0.iter().zip(times).zip(found) {
            let unknown = unknown(write, found.as_ref());
            let mut event = None;
            if let Some(found) = found.filter(|found| !found.changes_nothing()) {
                let ids = found.ids.iter().map(String::as_str);
                event = Some(write.event(found.state, ids, found.unread)?);
                changed.push((write, at, found, outcomes.len()));
            }
            outcomes.push(Marked { event, unknown });
        }
        if changed.is_empty() {
            return Ok(Attempt::Unchanged(outcomes));
        }
        changed.sort_by_key(|(write, ..)| write.user.as_str());
        let mut columns = EditColumns::default();
        for (write, at, found, position) in changed {
            if let Some(event) = &outcomes[position].event {
                columns.push(write, at, found, event);
            }
        }
        let inboxes_unchanged = self.write(columns, connection).await?;
        Ok(Attempt::written(inboxes_unchanged, outcomes))
    }
}
