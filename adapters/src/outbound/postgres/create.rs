use std::collections::{BTreeMap, BTreeSet};

use belfry_application::ports::{IdempotencyKey, IdempotentOutcome};
use belfry_application::trace::{self, TraceParent};
use belfry_domain::{Data, Draft, Link, Notification, NotificationId, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::failure::PgFailure;
use super::optimistic_write::{Attempt, OptimisticWrite};
use crate::outbound::relational::statements::FINGERPRINT;
use crate::outbound::relational::{
    CreatePlan, CreatePlanner, DuplicateRow, NotificationRow, StoredTimestamp as _, clamped,
    notifications,
};
use crate::wire::EventForm;

/// Puts drafts into their inboxes; with a key, once per key.
#[derive(Debug)]
pub(super) struct Create<'a> {
    drafts: &'a [Draft],
    key: Option<&'a IdempotencyKey>,
    trace: Option<TraceParent>,
}

impl<'a> Create<'a> {
    pub(super) fn new(drafts: &'a [Draft], key: Option<&'a IdempotencyKey>) -> Self {
        Self { drafts, key, trace: trace::current() }
    }
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
/// or is locked. Returns which. `MARK_READ` in `edit` explains why that is safe.
///
/// `$1` to `$3` are the inboxes, sorted by user: user, revision before, and number of new
/// notifications. `$4` to `$15` are the notifications, `$16` and `$17` the events and their names in
/// the same order, `$18` their trace, and `$19` to `$23` the idempotency key with its result, if
/// there is one.
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
        SELECT event::json, name, user_id, revision, $18
        FROM unnest($16::text[], $17::text[], $4::text[], $6::bigint[]) WITH ORDINALITY
            AS given (event, name, user_id, revision, ordinal)
        WHERE (SELECT unchanged FROM guard) ORDER BY ordinal
    ), idempotency_key AS (
        INSERT INTO idempotency_keys (caller, key, fingerprint, user_ids, notification_ids)
        SELECT $19, $20, $21, $22, $23
        WHERE $19::text IS NOT NULL AND (SELECT unchanged FROM guard)
    )
    SELECT unchanged FROM guard";

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
    /// The result of an earlier request with this key, if there is one.
    async fn earlier_result(
        key: &IdempotencyKey,
        connection: &mut PgConnection,
    ) -> Result<Option<IdempotentOutcome>, PgFailure> {
        let fingerprint: Option<String> = sqlx::query_scalar(FINGERPRINT)
            .bind(key.caller().as_str())
            .bind(key.key())
            .fetch_optional(&mut *connection)
            .await?;
        match fingerprint {
            None => return Ok(None),
            Some(other) if other != key.fingerprint() => {
                return Ok(Some(IdempotentOutcome::KeyReused));
            }
            Some(_) => {}
        }
        let rows: Vec<NotificationRow<DateTime<Utc>>> = sqlx::query_as(EARLIER_RESULT)
            .bind(key.caller().as_str())
            .bind(key.key())
            .fetch_all(connection)
            .await?;
        Ok(Some(IdempotentOutcome::Repeated(notifications(rows)?)))
    }

    async fn load(&self, connection: &mut PgConnection) -> Result<CreatePlanner, PgFailure> {
        let mut users = Vec::with_capacity(self.drafts.len());
        let mut ids = Vec::with_capacity(self.drafts.len());
        let mut keys = Vec::with_capacity(self.drafts.len());
        for draft in self.drafts {
            users.push(draft.user.as_str());
            ids.push(draft.id.as_str());
            keys.push(draft.dedupe_key.as_ref().map(NotificationId::as_str));
        }
        let rows: Vec<DuplicateRow<DateTime<Utc>>> =
            sqlx::query_as(LOAD).bind(users).bind(ids).bind(keys).fetch_all(connection).await?;
        Ok(CreatePlanner::from_rows(rows)?)
    }

    /// The inboxes to lock and to compare with the plan. With an idempotency key these include the ones
    /// that do not change: the key's result refers to their notifications, so an erasure must not come in
    /// between.
    fn inbox_columns<'p>(&self, plan: &'p CreatePlan) -> InboxColumns<'p> {
        let changed = plan.inboxes.iter().map(|(user, inbox)| (user, *inbox));
        let unchanged = plan.unchanged.iter().map(|(user, revision)| (user, (*revision, 0)));
        let unchanged = unchanged.filter(|_| self.key.is_some());
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
        &self,
        connection: &mut PgConnection,
        plan: &CreatePlan,
    ) -> Result<bool, PgFailure> {
        let inboxes = self.inbox_columns(plan);
        let mut rows = NotificationColumns::default();
        for (notification, dedupe_key) in plan.new_notifications().zip(&plan.dedupe_keys) {
            rows.push(notification, dedupe_key.as_ref())?;
        }
        let (events, names): (Vec<_>, Vec<_>) =
            plan.events().map(|event| (EventForm::write(event), event.name())).unzip();
        let (result_users, result_ids): (Vec<_>, Vec<_>) =
            plan.all_notifications().map(|one| (one.user.as_str(), one.id.as_str())).unzip();
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
            .bind(events)
            .bind(names)
            .bind(self.trace.as_ref().map(TraceParent::as_str))
            .bind(self.key.map(|key| key.caller().as_str()))
            .bind(self.key.map(IdempotencyKey::key))
            .bind(self.key.map(IdempotencyKey::fingerprint))
            .bind(result_users)
            .bind(result_ids)
            .fetch_one(connection)
            .await?;
        Ok(inboxes_unchanged)
    }
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

impl OptimisticWrite for Create<'_> {
    type Outcome = IdempotentOutcome;

    fn users(&self) -> Vec<&str> {
        let users: BTreeSet<_> = self.drafts.iter().map(|draft| draft.user.as_str()).collect();
        users.into_iter().collect()
    }

    async fn attempt(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Attempt<IdempotentOutcome>, PgFailure> {
        if let Some(key) = self.key
            && let Some(result) = Self::earlier_result(key, connection).await?
        {
            return Ok(Attempt::Unchanged(result));
        }
        let plan = self.load(connection).await?.plan(self.drafts);
        if plan.inboxes.is_empty() && self.key.is_none() {
            return Ok(Attempt::Unchanged(IdempotentOutcome::Executed(plan.receipts)));
        }
        let new_users: Vec<_> = plan.new_users.iter().map(UserId::as_str).collect();
        if !new_users.is_empty() {
            sqlx::query(CREATE_INBOXES).bind(new_users).execute(&mut *connection).await?;
        }
        let inboxes_unchanged = self.write(connection, &plan).await?;
        Ok(Attempt::written(inboxes_unchanged, IdempotentOutcome::Executed(plan.receipts)))
    }
}
