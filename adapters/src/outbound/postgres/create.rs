use std::collections::{BTreeMap, BTreeSet};

use belfry_application::ports::{IdempotencyKey, IdempotentOutcome};
use belfry_application::trace::TraceParent;
use belfry_domain::{Data, DomainEvent, Draft, Link, Notification, NotificationId, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::failure::PgFailure;
use super::optimistic_write::{Attempt, OptimisticWrite};
use crate::outbound::relational::{
    CreatePlan, CreatePlanner, CreateWrite, DuplicateRow, NotificationRow, StoredTimestamp as _,
    clamped, notifications, per_draft,
};
use crate::wire::EventForm;

/// Puts the drafts of several writes into their inboxes; those with a key once per key.
#[derive(Debug)]
pub(super) struct Create<'a> {
    /// No two of them have the same key.
    pub(super) writes: &'a [CreateWrite],
}

/// For each draft (its user, id and dedupe key) the state of its inbox, whether it exists or not, joined
/// with the inbox's notifications that have that id or that key.
///
/// Lateral, so that PostgreSQL can only look up each draft by index.
const LOAD: &str = "
    SELECT draft.user_id AS inbox, inbox.user_id IS NULL AS is_new,
        coalesce(inbox.revision, (SELECT erased_revision FROM store)) AS at_revision,
        coalesce(inbox.unread, 0) AS unread, n.dedupe_key,
        n.deleted_at IS NOT NULL AS deleted, n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at, n.read_at,
        n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data
    FROM unnest($1::text[], $2::text[], $3::text[]) AS draft (user_id, id, dedupe_key)
    LEFT JOIN LATERAL (
        SELECT * FROM inboxes WHERE user_id = draft.user_id OFFSET 0
    ) inbox ON true
    LEFT JOIN LATERAL (
        SELECT * FROM notifications duplicate
        WHERE duplicate.user_id = draft.user_id AND duplicate.id = draft.id
        UNION ALL
        SELECT * FROM notifications duplicate
        WHERE duplicate.user_id = draft.user_id AND duplicate.dedupe_key = draft.dedupe_key
    ) n ON true";

/// Creates missing inboxes. An empty inbox means the same as none, so this needs no transaction
/// with the statement that follows.
///
/// The lock on the row of `store` lasts until the commit: an erasure raises the revision before it deletes
/// the inbox, so an inbox that is created after that starts at the raised revision.
const CREATE_INBOXES: &str = "
    WITH erased AS MATERIALIZED (SELECT erased_revision AS revision FROM store FOR SHARE)
    INSERT INTO inboxes (user_id, revision, history_floor)
    SELECT user_id, erased.revision, erased.revision
    FROM unnest($1::text[]) AS given (user_id) CROSS JOIN erased
    ORDER BY user_id ON CONFLICT DO NOTHING";

/// Writes a plan completely, or nothing if one of the inboxes is not at the plan's first revision
/// or is locked. Returns whether it was written. `MARK_READ` in `edit` explains why that is safe.
///
/// `$1` to `$3` are the inboxes, sorted by user: user, revision before, and number of new
/// notifications. `$4` to `$15` are the notifications, `$16` and `$17` the events and their names in
/// the same order, and `$18` their traces. `$19` to `$21` are the idempotency keys. `$22` to `$24` are the
/// notifications of their results: user, id, and the position of the key, from 1.
const WRITE: &str = "
    WITH locked_inboxes AS (
        SELECT user_id, revision FROM inboxes WHERE user_id = ANY($1)
        ORDER BY user_id FOR UPDATE SKIP LOCKED
    ), guard AS (
        SELECT coalesce(array_agg(revision ORDER BY user_id), '{}') = $2 AS unchanged
        FROM locked_inboxes
    ), updated_inboxes AS (
        UPDATE inboxes inbox
        SET revision = inbox.revision + given.added, unread = inbox.unread + given.added
        FROM unnest($1::text[], $3::bigint[]) AS given (user_id, added)
        WHERE inbox.user_id = given.user_id AND given.added > 0 AND (SELECT unchanged FROM guard)
    ), new_notifications AS (
        INSERT INTO notifications (user_id, id, created_revision, revision, kind, title, message,
            data, link, priority, dedupe_key, created_at, expires_at)
        SELECT user_id, id, revision, revision, kind, title, message,
            data::json, link, priority, dedupe_key, created_at, expires_at
        FROM unnest($4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[],
                $10::text[], $11::text[], $12::text[], $13::text[],
                $14::timestamptz[], $15::timestamptz[])
            AS given (user_id, id, revision, kind, title, message,
                data, link, priority, dedupe_key, created_at, expires_at)
        WHERE (SELECT unchanged FROM guard)
    ), outbox_entries AS (
        INSERT INTO outbox (event, name, user_id, revision, traceparent)
        SELECT event::json, name, user_id, revision, trace
        FROM unnest($16::text[], $17::text[], $4::text[], $6::bigint[], $18::text[]) WITH ORDINALITY
            AS given (event, name, user_id, revision, trace, ordinal)
        WHERE (SELECT unchanged FROM guard) ORDER BY ordinal
    ), used_keys AS (
        INSERT INTO idempotency_keys (caller, key, fingerprint, user_ids, notification_ids)
        SELECT caller, key, fingerprint,
            coalesce(array_agg(user_id ORDER BY ordinal) FILTER (WHERE ordinal IS NOT NULL), '{}'),
            coalesce(array_agg(id ORDER BY ordinal) FILTER (WHERE ordinal IS NOT NULL), '{}')
        FROM unnest($19::text[], $20::text[], $21::text[]) WITH ORDINALITY
            AS given (caller, key, fingerprint, position)
        LEFT JOIN unnest($22::text[], $23::text[], $24::bigint[]) WITH ORDINALITY
            AS result (user_id, id, position, ordinal) USING (position)
        WHERE (SELECT unchanged FROM guard)
        GROUP BY caller, key, fingerprint
    )
    SELECT unchanged FROM guard";

/// The fingerprints of the keys `$1` and `$2` (caller and key) that were used before, with their positions
/// from 1.
const USED_KEYS: &str = "
    SELECT given.position, used.fingerprint
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given (caller, key, position)
    CROSS JOIN LATERAL (
        SELECT fingerprint FROM idempotency_keys
        WHERE caller = given.caller AND key = given.key OFFSET 0
    ) used";

/// The notifications of an earlier request with this key, in the order of its drafts, in their
/// present state.
const EARLIER_RESULT: &str = "
    SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at, n.read_at,
        n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data
    FROM idempotency_keys request
    CROSS JOIN LATERAL unnest(request.user_ids, request.notification_ids) WITH ORDINALITY
        AS result (user_id, id, ordinal)
    CROSS JOIN LATERAL (
        SELECT * FROM notifications one
        WHERE one.user_id = result.user_id AND one.id = result.id OFFSET 0
    ) n
    WHERE request.caller = $1 AND request.key = $2 AND n.deleted_at IS NULL
    ORDER BY ordinal";

impl Create<'_> {
    /// The results of the writes whose keys were used before, by their positions.
    async fn earlier_results(
        &self,
        connection: &mut PgConnection,
    ) -> Result<BTreeMap<usize, IdempotentOutcome>, PgFailure> {
        let keys: Vec<_> = self
            .writes
            .iter()
            .enumerate()
            .filter_map(|(position, write)| Some((position, write.key.as_ref()?)))
            .collect();
        let mut results = BTreeMap::new();
        if keys.is_empty() {
            return Ok(results);
        }
        let (callers, names): (Vec<_>, Vec<_>) =
            keys.iter().map(|(_, key)| (key.caller().as_str(), key.key())).unzip();
        let used: Vec<(i64, String)> =
            sqlx::query_as(USED_KEYS).bind(callers).bind(names).fetch_all(&mut *connection).await?;
        for (ordinal, fingerprint) in used {
            let index = usize::try_from(ordinal - 1).unwrap_or(usize::MAX);
            let Some(&(position, key)) = keys.get(index) else { continue };
            let result = if key.fingerprint() == fingerprint {
                Self::earlier_result(key, connection).await?
            } else {
                IdempotentOutcome::KeyReused
            };
            results.insert(position, result);
        }
        Ok(results)
    }

    async fn earlier_result(
        key: &IdempotencyKey,
        connection: &mut PgConnection,
    ) -> Result<IdempotentOutcome, PgFailure> {
        let rows: Vec<NotificationRow<DateTime<Utc>>> = sqlx::query_as(EARLIER_RESULT)
            .bind(key.caller().as_str())
            .bind(key.key())
            .fetch_all(connection)
            .await?;
        Ok(IdempotentOutcome::Repeated(notifications(rows)?))
    }

    async fn plan(
        writes: &[&CreateWrite],
        connection: &mut PgConnection,
    ) -> Result<CreatePlan, PgFailure> {
        let (mut users, mut ids, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for draft in drafts(writes) {
            users.push(draft.user.as_str());
            ids.push(draft.id.as_str());
            keys.push(draft.dedupe_key.as_ref().map(NotificationId::as_str));
        }
        let rows: Vec<DuplicateRow<DateTime<Utc>>> =
            sqlx::query_as(LOAD).bind(users).bind(ids).bind(keys).fetch_all(connection).await?;
        Ok(CreatePlanner::from_rows(rows)?.plan(drafts(writes)))
    }

    /// The inboxes to lock and to compare with the plan. With idempotency keys these include the ones
    /// that do not change: a key's result refers to their notifications, so an erasure must not come in
    /// between.
    fn inbox_columns<'p>(writes: &[&CreateWrite], plan: &'p CreatePlan) -> InboxColumns<'p> {
        let has_keys = writes.iter().any(|write| write.key.is_some());
        let changed = plan.inboxes.iter().map(|(user, inbox)| (user, *inbox));
        let unchanged = plan.unchanged.iter().map(|(user, revision)| (user, (*revision, 0)));
        let unchanged = unchanged.filter(|_| has_keys);
        let all: BTreeMap<_, _> = changed.chain(unchanged).collect();
        let mut columns = InboxColumns::default();
        for (user, (before, added)) in all {
            columns.users.push(user.as_str());
            columns.revisions_before.push(clamped(before.get()));
            columns.added.push(clamped(added));
        }
        columns
    }

    async fn write(
        writes: &[&CreateWrite],
        plan: &CreatePlan,
        connection: &mut PgConnection,
    ) -> Result<bool, PgFailure> {
        let inboxes = Self::inbox_columns(writes, plan);
        let mut rows = NotificationColumns::default();
        for (notification, dedupe_key) in plan.new_notifications().zip(&plan.dedupe_keys) {
            rows.push(notification, dedupe_key.as_ref())?;
        }
        let mut events = EventColumns::default();
        let sources = per_draft(writes.iter().copied(), |write| write);
        for (event, write) in plan.events(sources) {
            events.push(event, write);
        }
        let keys = KeyColumns::new(writes, plan);
        let inboxes_unchanged = sqlx::query_scalar(WRITE)
            .bind(inboxes.users)
            .bind(inboxes.revisions_before)
            .bind(inboxes.added)
            .bind(rows.users)
            .bind(rows.ids)
            .bind(rows.revisions)
            .bind(rows.kinds)
            .bind(rows.titles)
            .bind(rows.messages)
            .bind(rows.data)
            .bind(rows.links)
            .bind(rows.priorities)
            .bind(rows.dedupe_keys)
            .bind(rows.created_at)
            .bind(rows.expires_at)
            .bind(events.events)
            .bind(events.names)
            .bind(events.traces)
            .bind(keys.callers)
            .bind(keys.keys)
            .bind(keys.fingerprints)
            .bind(keys.result_users)
            .bind(keys.result_ids)
            .bind(keys.result_positions)
            .fetch_one(connection)
            .await?;
        Ok(inboxes_unchanged)
    }
}

/// The drafts of the writes, in order.
fn drafts<'w>(writes: &[&'w CreateWrite]) -> impl Iterator<Item = &'w Draft> {
    writes.iter().flat_map(|write| &write.drafts)
}

/// The inboxes of a plan, by column.
#[derive(Default)]
struct InboxColumns<'a> {
    users: Vec<&'a str>,
    revisions_before: Vec<i64>,
    added: Vec<i64>,
}

/// New notifications, by column.
#[derive(Default)]
struct NotificationColumns<'a> {
    users: Vec<&'a str>,
    ids: Vec<&'a str>,
    revisions: Vec<i64>,
    kinds: Vec<&'a str>,
    titles: Vec<&'a str>,
    messages: Vec<&'a str>,
    data: Vec<Option<&'a str>>,
    links: Vec<Option<&'a str>>,
    priorities: Vec<&'a str>,
    dedupe_keys: Vec<Option<&'a str>>,
    created_at: Vec<DateTime<Utc>>,
    expires_at: Vec<Option<DateTime<Utc>>>,
}

impl<'a> NotificationColumns<'a> {
    fn push(
        &mut self,
        notification: &'a Notification,
        dedupe_key: Option<&'a NotificationId>,
    ) -> Result<(), PgFailure> {
        self.users.push(notification.user.as_str());
        self.ids.push(notification.id.as_str());
        self.revisions.push(clamped(notification.revision.get()));
        self.kinds.push(notification.kind.as_str());
        self.titles.push(notification.title.as_str());
        self.messages.push(notification.message.as_str());
        self.data.push(notification.data.as_ref().map(Data::as_str));
        self.links.push(notification.link.as_ref().map(Link::as_str));
        self.priorities.push(notification.priority.as_str());
        self.dedupe_keys.push(dedupe_key.map(NotificationId::as_str));
        self.created_at.push(DateTime::from_domain(notification.created_at)?);
        self.expires_at.push(notification.expires_at.map(DateTime::from_domain).transpose()?);
        Ok(())
    }
}

/// Events of new notifications, by column.
#[derive(Default)]
struct EventColumns<'a> {
    events: Vec<String>,
    names: Vec<&'static str>,
    traces: Vec<Option<&'a str>>,
}

impl<'a> EventColumns<'a> {
    fn push(&mut self, event: &DomainEvent, write: &'a CreateWrite) {
        self.events.push(EventForm::write(event));
        self.names.push(event.name());
        self.traces.push(write.trace.as_ref().map(TraceParent::as_str));
    }
}

/// Idempotency keys and the notifications of their results, by column.
#[derive(Default)]
struct KeyColumns<'a> {
    callers: Vec<&'a str>,
    keys: Vec<&'a str>,
    fingerprints: Vec<&'a str>,
    result_users: Vec<&'a str>,
    result_ids: Vec<&'a str>,
    /// The position of the result's key, from 1.
    result_positions: Vec<i64>,
}

impl<'a> KeyColumns<'a> {
    fn new(writes: &[&'a CreateWrite], plan: &'a CreatePlan) -> Self {
        let mut columns = Self::default();
        let positions = per_draft(writes.iter().copied(), |write| {
            write.key.as_ref().map(|key| columns.push_key(key))
        });
        for (notification, position) in plan.all_notifications(positions) {
            if let Some(position) = position {
                columns.result_users.push(notification.user.as_str());
                columns.result_ids.push(notification.id.as_str());
                columns.result_positions.push(position);
            }
        }
        columns
    }

    /// Returns the position of the key.
    fn push_key(&mut self, key: &'a IdempotencyKey) -> i64 {
        self.callers.push(key.caller().as_str());
        self.keys.push(key.key());
        self.fingerprints.push(key.fingerprint());
        clamped(self.keys.len())
    }
}

impl OptimisticWrite for Create<'_> {
    type Outcome = Vec<IdempotentOutcome>;

    fn users(&self) -> Vec<&str> {
        let users: BTreeSet<_> = self
            .writes
            .iter()
            .flat_map(|write| &write.drafts)
            .map(|draft| draft.user.as_str())
            .collect();
        users.into_iter().collect()
    }

    async fn attempt(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Attempt<Vec<IdempotentOutcome>>, PgFailure> {
        let mut earlier = self.earlier_results(connection).await?;
        let new = self.writes.iter().enumerate();
        let new = new.filter(|(position, _)| !earlier.contains_key(position));
        let new: Vec<_> = new.map(|(_, write)| write).collect();
        let plan = Self::plan(&new, connection).await?;
        let writes_nothing = plan.inboxes.is_empty() && new.iter().all(|write| write.key.is_none());
        let inboxes_unchanged = if writes_nothing {
            true
        } else {
            let new_users: Vec<_> = plan.new_users.iter().map(UserId::as_str).collect();
            if !new_users.is_empty() {
                sqlx::query(CREATE_INBOXES).bind(new_users).execute(&mut *connection).await?;
            }
            Self::write(&new, &plan, connection).await?
        };
        let mut executed = plan.outcomes(new.iter().map(|write| write.drafts.len()));
        let outcomes = (0..self.writes.len())
            .filter_map(|position| earlier.remove(&position).or_else(|| executed.next()))
            .collect();
        if writes_nothing {
            return Ok(Attempt::Unchanged(outcomes));
        }
        Ok(Attempt::written(inboxes_unchanged, outcomes))
    }
}
