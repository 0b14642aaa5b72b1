use std::collections::BTreeSet;

use belfry_application::ports::{IdempotencyKey, IdempotentOutcome};
use belfry_application::trace::{self, TraceParent};
use belfry_domain::{Data, Draft, Link, Notification, NotificationId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::change::{Attempt, Change};
use super::failure::Failure;
use super::inbox_repository::{columns, instant};
use crate::outbound::relational::{Intake, NotificationRow, StandingRow, Taken, clamped};
use crate::wire::EventForm;

/// Drafts on their way into their inboxes, once or once for each key.
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

/// For each draft (its user, its id, its dedupe key) where its inbox stands, if there is one, and
/// beside it the notifications in it that have that id or that key.
///
/// Lateral, so that there is no other way to do it than to look up each draft by index.
const STANDING: &str = concat!(
    "
    SELECT inbox.user_id AS inbox, inbox.revision AS at_revision, inbox.unread, n.dedupe_key, ",
    columns!(),
    "
    FROM unnest($1::text[], $2::text[], $3::text[]) AS draft (user_id, id, dedupe_key)
    CROSS JOIN LATERAL (
        SELECT * FROM inboxes WHERE user_id = draft.user_id OFFSET 0
    ) inbox
    LEFT JOIN LATERAL (
        SELECT * FROM notifications twin
        WHERE twin.user_id = draft.user_id AND twin.id = draft.id
        UNION ALL
        SELECT * FROM notifications twin
        WHERE twin.user_id = draft.user_id AND twin.dedupe_key = draft.dedupe_key
    ) n ON true"
);

/// Makes inboxes that are not there. An empty one means the same as none, so this needs no
/// transaction with what follows.
const OPEN: &str = "
    INSERT INTO inboxes (user_id) SELECT user_id FROM unnest($1::text[]) AS given (user_id)
    ORDER BY user_id ON CONFLICT DO NOTHING";

/// Writes what was taken, all of it or, if one of the inboxes is not at the revision from which the
/// plan starts, nothing; answers which. See `edit!` for why that is safe.
///
/// `$1` to `$3` say how each inbox moves, sorted by user: from which revision, and by how much.
/// `$4` to `$15` are the notifications, `$16` the events in the same order, `$17` their trace, and
/// `$18` to `$22` the idempotency key, if there is one.
const WRITE: &str = "
    WITH held AS (
        SELECT user_id, revision FROM inboxes WHERE user_id = ANY($1)
        ORDER BY user_id FOR UPDATE SKIP LOCKED
    ), unchanged AS (
        SELECT coalesce(array_agg(revision ORDER BY user_id), '{}') = $2 AS yes FROM held
    ), moved AS (
        UPDATE inboxes inbox
        SET revision = inbox.revision + given.taken, unread = inbox.unread + given.taken
        FROM unnest($1::text[], $3::bigint[]) AS given (user_id, taken)
        WHERE inbox.user_id = given.user_id AND (SELECT yes FROM unchanged)
    ), written AS (
        INSERT INTO notifications (user_id, id, created_revision, revision, kind, title, message,
            data, link, priority, dedupe_key, created_at, expires_at)
        SELECT user_id, id, revision, revision, kind, title, message,
            data::json, link, priority, dedupe_key, created_at, expires_at
        FROM unnest($4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[],
                $10::text[], $11::text[], $12::text[], $13::text[],
                $14::timestamptz[], $15::timestamptz[])
            AS taken (user_id, id, revision, kind, title, message,
                data, link, priority, dedupe_key, created_at, expires_at)
        WHERE (SELECT yes FROM unchanged)
    ), told AS (
        INSERT INTO outbox (event, traceparent)
        SELECT event::json, $17 FROM unnest($16::text[]) WITH ORDINALITY AS told (event, place)
        WHERE (SELECT yes FROM unchanged) ORDER BY place
    ), remembered AS (
        INSERT INTO idempotency_keys (caller, key, fingerprint, user_ids, notification_ids)
        SELECT $18, $19, $20, $21, $22
        WHERE $18::text IS NOT NULL AND (SELECT yes FROM unchanged)
    )
    SELECT yes FROM unchanged";

const ASKED: &str = "SELECT fingerprint FROM idempotency_keys WHERE caller = $1 AND key = $2";

/// What a request led to, as it is now, in the order of its drafts.
const LED_TO: &str = concat!(
    "SELECT ",
    columns!(),
    "
    FROM idempotency_keys asked
    CROSS JOIN LATERAL unnest(asked.user_ids, asked.notification_ids) WITH ORDINALITY
        AS led_to (user_id, id, place)
    CROSS JOIN LATERAL (
        SELECT * FROM notifications one
        WHERE one.user_id = led_to.user_id AND one.id = led_to.id OFFSET 0
    ) n
    WHERE asked.caller = $1 AND asked.key = $2 AND n.deleted_at IS NULL
    ORDER BY place"
);

impl Create<'_> {
    /// What became of the request if it was made before.
    async fn asked_before(
        key: &IdempotencyKey,
        connection: &mut PgConnection,
    ) -> Result<Option<IdempotentOutcome>, Failure> {
        let fingerprint: Option<String> = sqlx::query_scalar(ASKED)
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
        let led_to: Vec<NotificationRow<DateTime<Utc>>> = sqlx::query_as(LED_TO)
            .bind(key.caller().as_str())
            .bind(key.key())
            .fetch_all(connection)
            .await?;
        let led_to = led_to.into_iter().map(NotificationRow::read);
        Ok(Some(IdempotentOutcome::Repeated(led_to.collect::<Result<_, _>>()?)))
    }

    /// Where the drafts' inboxes stand.
    async fn standing(&self, connection: &mut PgConnection) -> Result<Intake, Failure> {
        let mut users = Vec::with_capacity(self.drafts.len());
        let mut ids = Vec::with_capacity(self.drafts.len());
        let mut keys = Vec::with_capacity(self.drafts.len());
        for draft in self.drafts {
            users.push(draft.user.as_str());
            ids.push(draft.id.as_str());
            keys.push(draft.dedupe_key.as_ref().map(NotificationId::as_str));
        }
        let rows: Vec<StandingRow<DateTime<Utc>>> =
            sqlx::query_as(STANDING).bind(users).bind(ids).bind(keys).fetch_all(connection).await?;
        Ok(Intake::of(rows)?)
    }

    async fn write(&self, connection: &mut PgConnection, taken: &Taken) -> Result<bool, Failure> {
        let mut moves = Moves::default();
        for (user, (from, count)) in &taken.moved {
            moves.users.push(user.as_str());
            moves.from.push(clamped(from.get()));
            moves.counts.push(clamped(*count));
        }
        let mut rows = Rows::default();
        for (one, dedupe_key) in taken.notifications().zip(&taken.dedupe_keys) {
            rows.push(one, dedupe_key.as_ref())?;
        }
        let events: Vec<_> = taken.events().map(EventForm::write).collect();
        let led_to: (Vec<_>, Vec<_>) =
            taken.led_to().map(|one| (one.user.as_str(), one.id.as_str())).unzip();
        let held = sqlx::query_scalar(WRITE)
            .bind(moves.users)
            .bind(moves.from)
            .bind(moves.counts)
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
            .bind(self.trace.as_ref().map(TraceParent::as_str))
            .bind(self.key.map(|key| key.caller().as_str()))
            .bind(self.key.map(IdempotencyKey::key))
            .bind(self.key.map(IdempotencyKey::fingerprint))
            .bind(led_to.0)
            .bind(led_to.1)
            .fetch_one(connection)
            .await?;
        Ok(held)
    }
}

/// How inboxes move, by column.
#[derive(Default)]
struct Moves<'a> {
    users: Vec<&'a str>,
    from: Vec<i64>,
    counts: Vec<i64>,
}

/// New notifications, by column.
#[derive(Default)]
struct Rows<'a> {
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

impl<'a> Rows<'a> {
    fn push(
        &mut self,
        one: &'a Notification,
        dedupe_key: Option<&'a NotificationId>,
    ) -> Result<(), Failure> {
        self.users.push(one.user.as_str());
        self.ids.push(one.id.as_str());
        self.revisions.push(clamped(one.revision.get()));
        self.kinds.push(one.kind.as_str());
        self.titles.push(one.title.as_str());
        self.messages.push(one.message.as_str());
        self.data.push(one.data.as_ref().map(Data::as_str));
        self.links.push(one.link.as_ref().map(Link::as_str));
        self.priorities.push(one.priority.as_str());
        self.dedupe_keys.push(dedupe_key.map(NotificationId::as_str));
        self.created_at.push(instant(one.created_at)?);
        self.expires_at.push(one.expires_at.map(instant).transpose()?);
        Ok(())
    }
}

impl Change for Create<'_> {
    type Outcome = IdempotentOutcome;

    fn users(&self) -> Vec<&str> {
        let users: BTreeSet<_> = self.drafts.iter().map(|draft| draft.user.as_str()).collect();
        users.into_iter().collect()
    }

    async fn attempt(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Attempt<IdempotentOutcome>, Failure> {
        if let Some(key) = self.key
            && let Some(answer) = Self::asked_before(key, connection).await?
        {
            return Ok(Attempt::Unwritten(answer));
        }
        let taken = self.standing(connection).await?.take(self.drafts);
        if taken.moved.is_empty() && self.key.is_none() {
            return Ok(Attempt::Unwritten(IdempotentOutcome::Executed(taken.receipts)));
        }
        let new: Vec<_> = taken.first_ever().collect();
        if !new.is_empty() {
            sqlx::query(OPEN).bind(new).execute(&mut *connection).await?;
        }
        let held = self.write(connection, &taken).await?;
        Ok(Attempt::written(held, IdempotentOutcome::Executed(taken.receipts)))
    }
}
