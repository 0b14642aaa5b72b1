use std::collections::BTreeSet;
use std::iter::repeat;
use std::sync::LazyLock;

use belfry_application::ports::{IdempotencyKey, IdempotentOutcome};
use belfry_domain::{Data, Draft, Link, Notification, NotificationId};
use serde::Serialize;
use sqlx::SqliteConnection;

use super::failure::SqliteFailure;
use super::write::{INSERT_EVENTS, Work, event_rows, in_sequence, list};
use crate::outbound::relational::{
    CreatePlan, CreatePlanner, CreateWrite, DuplicateRow, NotificationRow, StoredTimestamp as _,
    clamped, notifications, per_draft,
};

/// The state of the inboxes `?1`, whether they exist or not, joined with the notifications that have the
/// id or the dedupe key of a draft in `?2` (user, id and key of each).
pub(super) const LOAD: &str = "
    SELECT given.value AS inbox, inbox.user_id IS NULL AS is_new,
        coalesce(inbox.revision, (SELECT erased_revision FROM store)) AS at_revision,
        coalesce(inbox.unread, 0) AS unread, n.dedupe_key,
        n.deleted_at IS NOT NULL AS deleted, n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at, n.read_at,
        n.priority, n.kind, n.title, n.message, n.link, n.data
    FROM json_each(?1) given LEFT JOIN inboxes inbox ON inbox.user_id = given.value LEFT JOIN (
        SELECT duplicate.* FROM json_each(?2) draft JOIN notifications duplicate
          ON duplicate.user_id = draft.value ->> 0 AND duplicate.id = draft.value ->> 1
        UNION ALL
        SELECT duplicate.* FROM json_each(?2) draft JOIN notifications duplicate
          ON duplicate.user_id = draft.value ->> 0 AND duplicate.dedupe_key = draft.value ->> 2
    ) n ON n.user_id = given.value";

/// Writes a plan: the inboxes, the notifications and the events.
static WRITE: LazyLock<String> =
    LazyLock::new(|| in_sequence(&[UPDATE_INBOXES, INSERT_NOTIFICATIONS, INSERT_EVENTS]));

/// Adds to the revision and the unread count of inboxes (user and number of each). A new inbox starts
/// where erased ones ended.
const UPDATE_INBOXES: &str = "
    INSERT INTO inboxes (user_id, revision, unread, history_floor)
    SELECT value ->> 0, erased_revision + (value ->> 1), value ->> 1, erased_revision
    FROM json_each(?) CROSS JOIN store WHERE true
    ON CONFLICT (user_id) DO UPDATE
    SET revision = revision + excluded.unread, unread = unread + excluded.unread";

const INSERT_NOTIFICATIONS: &str = "
    INSERT INTO notifications (user_id, id, created_revision, revision, kind, title, message, data,
        link, priority, dedupe_key, created_at, expires_at)
    SELECT value ->> 'user_id', value ->> 'id', value ->> 'revision', value ->> 'revision',
        value ->> 'kind', value ->> 'title', value ->> 'message', value ->> 'data',
        value ->> 'link', value ->> 'priority', value ->> 'dedupe_key', value ->> 'created_at',
        value ->> 'expires_at'
    FROM json_each(?)";

const FINGERPRINT: &str = "SELECT fingerprint FROM idempotency_keys WHERE caller = ?1 AND key = ?2";

const INSERT_IDEMPOTENCY_KEY: &str =
    "INSERT INTO idempotency_keys (caller, key, fingerprint, led_to) VALUES (?1, ?2, ?3, ?4)";

/// The notifications of an earlier request with this key, in the order of its drafts, in their
/// present state.
pub(super) const EARLIER_RESULT: &str = "
    SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at, n.read_at,
        n.priority, n.kind, n.title, n.message, n.link, n.data
    FROM idempotency_keys request JOIN json_each(request.led_to) result JOIN notifications n
      ON n.user_id = result.value ->> 0 AND n.id = result.value ->> 1
    WHERE request.caller = ?1 AND request.key = ?2 AND n.deleted_at IS NULL
    ORDER BY result.key";

/// A new row of `notifications`, encoded for `json_each`. `data` is JSON itself; it is encoded as a
/// string so that its text does not change.
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
    fn new(
        notification: &'a Notification,
        dedupe_key: Option<&'a NotificationId>,
    ) -> Result<Self, SqliteFailure> {
        Ok(Self {
            user_id: notification.user.as_str(),
            id: notification.id.as_str(),
            revision: notification.revision.get(),
            kind: notification.kind.as_str(),
            title: notification.title.as_str(),
            message: notification.message.as_str(),
            data: notification.data.as_ref().map(Data::as_str),
            link: notification.link.as_ref().map(Link::as_str),
            priority: notification.priority.as_str(),
            dedupe_key: dedupe_key.map(NotificationId::as_str),
            created_at: i64::from_domain(notification.created_at)?,
            expires_at: notification.expires_at.map(i64::from_domain).transpose()?,
        })
    }
}

/// Puts the drafts of several writes into their inboxes.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    writes: &[&CreateWrite],
) -> Result<Work<CreatePlan>, SqliteFailure> {
    let drafts: Vec<_> = writes.iter().flat_map(|write| &write.drafts).collect();
    let plan = load(connection, &drafts).await?.plan(drafts);
    if plan.inboxes.is_empty() {
        return Ok(Work::Unchanged(plan));
    }
    let inboxes = plan.inboxes.iter();
    let inboxes = inboxes.map(|(user, (_, added))| (user.as_str(), clamped(*added)));
    let rows: Vec<_> = plan
        .new_notifications()
        .zip(&plan.dedupe_keys)
        .map(|(notification, key)| NewRow::new(notification, key.as_ref()))
        .collect::<Result<_, _>>()?;
    let traces = per_draft(writes.iter().copied(), |write| write.trace.as_ref());
    sqlx::query(WRITE.as_str())
        .bind(list(inboxes))
        .bind(list(rows))
        .bind(event_rows(plan.events(traces)))
        .execute(connection)
        .await?;
    Ok(Work::Written(plan))
}

/// Puts drafts into their inboxes, unless the key was used before.
pub(super) async fn create_once(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
    write: &CreateWrite,
) -> Result<Work<IdempotentOutcome>, SqliteFailure> {
    if let Some(result) = earlier_result(connection, key).await? {
        return Ok(Work::Unchanged(result));
    }
    let plan = create(connection, &[write]).await?.outcome();
    let result = plan.all_notifications(repeat(()));
    let result = result.map(|(one, ())| (one.user.as_str(), one.id.as_str()));
    sqlx::query(INSERT_IDEMPOTENCY_KEY)
        .bind(key.caller().as_str())
        .bind(key.key())
        .bind(key.fingerprint())
        .bind(list(result))
        .execute(connection)
        .await?;
    Ok(Work::Written(IdempotentOutcome::Executed(plan.receipts)))
}

/// The result of an earlier request with this key, if there is one.
async fn earlier_result(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
) -> Result<Option<IdempotentOutcome>, SqliteFailure> {
    let fingerprint: Option<String> = sqlx::query_scalar(FINGERPRINT)
        .bind(key.caller().as_str())
        .bind(key.key())
        .fetch_optional(&mut *connection)
        .await?;
    match fingerprint {
        None => return Ok(None),
        Some(other) if other != key.fingerprint() => return Ok(Some(IdempotentOutcome::KeyReused)),
        Some(_) => {}
    }
    let rows: Vec<NotificationRow<i64>> = sqlx::query_as(EARLIER_RESULT)
        .bind(key.caller().as_str())
        .bind(key.key())
        .fetch_all(connection)
        .await?;
    Ok(Some(IdempotentOutcome::Repeated(notifications(rows)?)))
}

async fn load(
    connection: &mut SqliteConnection,
    drafts: &[&Draft],
) -> Result<CreatePlanner, SqliteFailure> {
    let users: BTreeSet<_> = drafts.iter().map(|draft| draft.user.as_str()).collect();
    let keys = drafts.iter().map(|draft| {
        let dedupe_key = draft.dedupe_key.as_ref().map(NotificationId::as_str);
        (draft.user.as_str(), draft.id.as_str(), dedupe_key)
    });
    let rows: Vec<DuplicateRow<i64>> =
        sqlx::query_as(LOAD).bind(list(users)).bind(list(keys)).fetch_all(connection).await?;
    Ok(CreatePlanner::from_rows(rows)?)
}
