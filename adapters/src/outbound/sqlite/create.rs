use std::collections::BTreeSet;

use belfry_application::ports::{IdempotencyKey, IdempotentOutcome};
use belfry_application::trace::{self, TraceParent};
use belfry_domain::{Data, Draft, Link, Notification, NotificationId};
use serde::Serialize;
use sqlx::SqliteConnection;

use super::failure::Failure;
use super::inbox_repository::{columns, millis};
use super::outbox::TELL;
use super::write::{Work, list};
use crate::outbound::relational::{Intake, NotificationRow, StandingRow, Taken, clamped};
use crate::wire::EventForm;

/// Where the inboxes of `?1` stand, each with those of its notifications that have the id or the
/// dedupe key of a draft; `?2` has user, id and key of each.
pub(super) const STANDING: &str = concat!(
    "
    SELECT inbox.user_id AS inbox, inbox.revision AS at_revision, inbox.unread, n.dedupe_key, ",
    columns!(),
    "
    FROM inboxes inbox LEFT JOIN (
        SELECT twin.* FROM json_each(?2) draft JOIN notifications twin
          ON twin.user_id = draft.value ->> 0 AND twin.id = draft.value ->> 1
        UNION ALL
        SELECT twin.* FROM json_each(?2) draft JOIN notifications twin
          ON twin.user_id = draft.value ->> 0 AND twin.dedupe_key = draft.value ->> 2
    ) n ON n.user_id = inbox.user_id
    WHERE inbox.user_id IN (SELECT value FROM json_each(?1))"
);

const MOVE: &str = "
    INSERT INTO inboxes (user_id, revision, unread)
    SELECT value ->> 0, value ->> 1, value ->> 1 FROM json_each(?1) WHERE true
    ON CONFLICT (user_id) DO UPDATE
    SET revision = revision + excluded.revision, unread = unread + excluded.unread";

const WRITE: &str = "
    INSERT INTO notifications (user_id, id, created_revision, revision, kind, title, message, data,
        link, priority, dedupe_key, created_at, expires_at)
    SELECT value ->> 'user_id', value ->> 'id', value ->> 'revision', value ->> 'revision',
        value ->> 'kind', value ->> 'title', value ->> 'message', value ->> 'data',
        value ->> 'link', value ->> 'priority', value ->> 'dedupe_key', value ->> 'created_at',
        value ->> 'expires_at'
    FROM json_each(?1)";

const ASKED: &str = "SELECT fingerprint FROM idempotency_keys WHERE caller = ?1 AND key = ?2";

const REMEMBER: &str =
    "INSERT INTO idempotency_keys (caller, key, fingerprint, led_to) VALUES (?1, ?2, ?3, ?4)";

/// What a request led to, as it is now, in the order of its drafts.
pub(super) const LED_TO: &str = concat!(
    "SELECT ",
    columns!(),
    "
    FROM idempotency_keys asked JOIN json_each(asked.led_to) led_to JOIN notifications n
      ON n.user_id = led_to.value ->> 0 AND n.id = led_to.value ->> 1
    WHERE asked.caller = ?1 AND asked.key = ?2 AND n.deleted_at IS NULL
    ORDER BY led_to.key"
);

/// A new row of `notifications`, on its way through `json_each`. What is JSON itself travels as a
/// text, and arrives as it was.
#[derive(Serialize)]
struct NewRow<'a> {
    user_id: &'a str,
    id: &'a str,
    revision: u64,
    kind: &'a str,
    title: &'a str,
    message: &'a str,
    data: Option<&'a str>,
    link: Option<&'a str>,
    priority: &'a str,
    dedupe_key: Option<&'a str>,
    created_at: i64,
    expires_at: Option<i64>,
}

impl<'a> NewRow<'a> {
    fn of(one: &'a Notification, key: Option<&'a NotificationId>) -> Result<Self, Failure> {
        Ok(Self {
            user_id: one.user.as_str(),
            id: one.id.as_str(),
            revision: one.revision.get(),
            kind: one.kind.as_str(),
            title: one.title.as_str(),
            message: one.message.as_str(),
            data: one.data.as_ref().map(Data::as_str),
            link: one.link.as_ref().map(Link::as_str),
            priority: one.priority.as_str(),
            dedupe_key: key.map(NotificationId::as_str),
            created_at: millis(one.created_at)?,
            expires_at: one.expires_at.map(millis).transpose()?,
        })
    }
}

/// Puts drafts into their inboxes.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    drafts: &[Draft],
) -> Result<Work<Taken>, Failure> {
    let taken = standing(connection, drafts).await?.take(drafts);
    if taken.moved.is_empty() {
        return Ok(Work::Unwritten(taken));
    }
    let moved = taken.moved.iter();
    sqlx::query(MOVE)
        .bind(list(moved.map(|(user, (_, count))| (user.as_str(), clamped(*count)))))
        .execute(&mut *connection)
        .await?;
    let rows: Vec<_> = taken
        .notifications()
        .zip(&taken.dedupe_keys)
        .map(|(one, key)| NewRow::of(one, key.as_ref()))
        .collect::<Result<_, _>>()?;
    sqlx::query(WRITE).bind(list(rows)).execute(&mut *connection).await?;
    sqlx::query(TELL)
        .bind(list(taken.events().map(EventForm::write)))
        .bind(trace::current().as_ref().map(TraceParent::as_str))
        .execute(connection)
        .await?;
    Ok(Work::Written(taken))
}

/// Puts drafts into their inboxes, unless that request was made before.
pub(super) async fn create_once(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
    drafts: &[Draft],
) -> Result<Work<IdempotentOutcome>, Failure> {
    if let Some(answer) = asked_before(connection, key).await? {
        return Ok(Work::Unwritten(answer));
    }
    let (Work::Written(taken) | Work::Unwritten(taken)) = create(connection, drafts).await?;
    let led_to = taken.led_to();
    sqlx::query(REMEMBER)
        .bind(key.caller().as_str())
        .bind(key.key())
        .bind(key.fingerprint())
        .bind(list(led_to.map(|one| (one.user.as_str(), one.id.as_str()))))
        .execute(connection)
        .await?;
    Ok(Work::Written(IdempotentOutcome::Executed(taken.receipts)))
}

/// What became of the request if it was made before.
async fn asked_before(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
) -> Result<Option<IdempotentOutcome>, Failure> {
    let fingerprint: Option<String> = sqlx::query_scalar(ASKED)
        .bind(key.caller().as_str())
        .bind(key.key())
        .fetch_optional(&mut *connection)
        .await?;
    match fingerprint {
        None => return Ok(None),
        Some(other) if other != key.fingerprint() => return Ok(Some(IdempotentOutcome::KeyReused)),
        Some(_) => {}
    }
    let led_to: Vec<NotificationRow<i64>> = sqlx::query_as(LED_TO)
        .bind(key.caller().as_str())
        .bind(key.key())
        .fetch_all(connection)
        .await?;
    let led_to = led_to.into_iter().map(NotificationRow::read);
    Ok(Some(IdempotentOutcome::Repeated(led_to.collect::<Result<_, _>>()?)))
}

/// Where the drafts' inboxes stand.
async fn standing(connection: &mut SqliteConnection, drafts: &[Draft]) -> Result<Intake, Failure> {
    let users: BTreeSet<_> = drafts.iter().map(|draft| draft.user.as_str()).collect();
    let named = drafts.iter().map(|draft| {
        let key = draft.dedupe_key.as_ref().map(NotificationId::as_str);
        (draft.user.as_str(), draft.id.as_str(), key)
    });
    let rows: Vec<StandingRow<i64>> =
        sqlx::query_as(STANDING).bind(list(users)).bind(list(named)).fetch_all(connection).await?;
    Ok(Intake::of(rows)?)
}
