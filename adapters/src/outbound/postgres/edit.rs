use std::collections::BTreeSet;

use belfry_application::trace::{self, TraceParent};
use belfry_domain::{
    Change as Told, DomainEvent, InboxState, Marked, NotificationId, Revision, Timestamp,
    UnreadCount, UserId,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::change::{Attempt, Change};
use super::failure::Failure;
use super::inbox_repository::instant;
use crate::outbound::relational::{Unreadable, clamped, inbox_state, whole};
use crate::wire::EventForm;

/// What is done to notifications of one inbox that are there already.
#[derive(Debug)]
pub(super) struct Edit<'a> {
    user: &'a UserId,
    kind: Kind<'a>,
    at: DateTime<Utc>,
    read_at: Timestamp,
    trace: Option<TraceParent>,
}

#[derive(Debug, Clone, Copy)]
enum Kind<'a> {
    Read(&'a [NotificationId]),
    ReadAll,
    Delete(&'a [NotificationId]),
}

impl<'a> Edit<'a> {
    pub(super) fn read(
        user: &'a UserId,
        ids: &'a [NotificationId],
        at: Timestamp,
    ) -> Result<Self, Failure> {
        Self::new(user, Kind::Read(ids), at)
    }

    pub(super) fn read_all(user: &'a UserId, at: Timestamp) -> Result<Self, Failure> {
        Self::new(user, Kind::ReadAll, at)
    }

    pub(super) fn delete(
        user: &'a UserId,
        ids: &'a [NotificationId],
        at: Timestamp,
    ) -> Result<Self, Failure> {
        Self::new(user, Kind::Delete(ids), at)
    }

    fn new(user: &'a UserId, kind: Kind<'a>, at: Timestamp) -> Result<Self, Failure> {
        Ok(Self { user, kind, at: instant(at)?, read_at: at, trace: trace::current() })
    }
}

/// Where the inbox stands, which of the notifications are there, and which it has never had; `$3` wants
/// only unread ones. All of it is of one moment: one that came between two statements would be neither
/// there nor unknown.
const FOUND: &str = "
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

const STATE: &str = "SELECT revision, unread FROM inboxes WHERE user_id = $1";

/// A statement that takes the inbox from revision `$2` to the next one, with `$3` unread, changes
/// notifications and tells of it (`$4`, `$5`). It answers whether it did: if the inbox is not at that
/// revision, or somebody holds it, nothing happens.
///
/// All of it hangs on `unchanged`, which locks the row and looks at the newest version of it. If that
/// has the revision which an earlier statement read, then nobody has changed the inbox since, and
/// what this statement sees of its notifications is what is there.
macro_rules! edit {
    ($notifications:expr) => {
        concat!(
            "
    WITH held AS (
        SELECT revision FROM inboxes WHERE user_id = $1 FOR UPDATE SKIP LOCKED
    ), unchanged AS (
        SELECT coalesce((SELECT revision = $2 FROM held), false) AS yes
    ), moved AS (
        UPDATE inboxes SET revision = $2 + 1, unread = $3
        WHERE user_id = $1 AND (SELECT yes FROM unchanged)
    ), edited AS (",
            $notifications,
            "
        AND (SELECT yes FROM unchanged)
    ), told AS (
        INSERT INTO outbox (event, traceparent)
        SELECT $4::json, $5 WHERE (SELECT yes FROM unchanged)
    )
    SELECT yes FROM unchanged"
        )
    };
}

/// Changes those of the inbox whose ids `$7` names. Each is looked up by itself, whatever PostgreSQL
/// thinks of the inbox's size: in one that seems small it would rather walk through all of it.
macro_rules! edit_named {
    ($change:literal) => {
        edit!(concat!(
            "
        UPDATE notifications n SET revision = $2 + 1, ",
            $change,
            "
        FROM unnest($7::text[]) AS named (id) CROSS JOIN LATERAL (
            SELECT ctid FROM notifications one
            WHERE one.user_id = $1 AND one.id = named.id OFFSET 0
        ) place
        WHERE n.ctid = place.ctid"
        ))
    };
}

const READ: &str = edit_named!("read_at = $6");

const READ_ALL: &str = edit!(
    "
        UPDATE notifications SET revision = $2 + 1, read_at = $6
        WHERE user_id = $1 AND deleted_at IS NULL AND read_at IS NULL"
);

const DELETE: &str = edit_named!("deleted_at = $6");

/// What there is to change.
struct Found {
    state: InboxState,
    ids: Vec<String>,
    unread: u64,
    unknown: Vec<String>,
}

/// What [`FOUND`] answers.
#[derive(sqlx::FromRow)]
struct FoundRow {
    revision: i64,
    unread: i64,
    ids: Vec<String>,
    unread_ones: i64,
    unknown: Vec<String>,
}

impl FoundRow {
    fn read(self) -> Result<Found, Failure> {
        let Self { revision, unread, ids, unread_ones, unknown } = self;
        let state = inbox_state(revision, unread)?;
        Ok(Found { state, ids, unread: whole(unread_ones)?, unknown })
    }
}

impl Edit<'_> {
    async fn find(&self, connection: &mut PgConnection) -> Result<Option<Found>, Failure> {
        let (ids, only_unread) = match self.kind {
            Kind::Read(ids) => (ids, true),
            Kind::Delete(ids) => (ids, false),
            Kind::ReadAll => return self.find_all(connection).await,
        };
        let ids: BTreeSet<_> = ids.iter().map(NotificationId::as_str).collect();
        let row: Option<FoundRow> = sqlx::query_as(FOUND)
            .bind(self.user.as_str())
            .bind(ids.into_iter().collect::<Vec<_>>())
            .bind(only_unread)
            .fetch_optional(connection)
            .await?;
        row.map(FoundRow::read).transpose()
    }

    async fn find_all(&self, connection: &mut PgConnection) -> Result<Option<Found>, Failure> {
        let row: Option<(i64, i64)> =
            sqlx::query_as(STATE).bind(self.user.as_str()).fetch_optional(connection).await?;
        let Some((revision, unread)) = row else {
            return Ok(None);
        };
        let state = inbox_state(revision, unread)?;
        let unread = state.unread.get();
        Ok(Some(Found { state, ids: Vec::new(), unread, unknown: Vec::new() }))
    }

    /// Those that the inbox has never had, each once, as they were named; all where there is no inbox.
    fn unknown(&self, found: Option<&Found>) -> Vec<NotificationId> {
        let Kind::Read(ids) = self.kind else { return Vec::new() };
        let mut unknown: BTreeSet<&str> = match found {
            Some(found) => found.unknown.iter().map(String::as_str).collect(),
            None => ids.iter().map(NotificationId::as_str).collect(),
        };
        ids.iter().filter(|id| unknown.remove(id.as_str())).cloned().collect()
    }

    fn event(&self, found: &Found) -> Result<DomainEvent, Failure> {
        let ids = || {
            let parsed = found.ids.iter().map(|id| NotificationId::parse(id));
            parsed.collect::<Result<Vec<_>, _>>().map_err(|why| Unreadable::new("an id", &why))
        };
        let change = match self.kind {
            Kind::Read(_) => Told::MarkedRead { ids: ids()?, read_at: self.read_at },
            Kind::ReadAll => Told::AllRead { read_at: self.read_at },
            Kind::Delete(_) => Told::Deleted { ids: ids()? },
        };
        let left = found.state.unread.get().checked_sub(found.unread);
        let left = left.ok_or_else(|| Unreadable::new("an unread count", &"it is too low"))?;
        Ok(DomainEvent {
            user: self.user.clone(),
            revision: found.state.revision.next(),
            unread: UnreadCount::new(left),
            change,
        })
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        from: Revision,
        ids: &[String],
        event: &DomainEvent,
    ) -> Result<bool, Failure> {
        let statement = match self.kind {
            Kind::Read(_) => READ,
            Kind::ReadAll => READ_ALL,
            Kind::Delete(_) => DELETE,
        };
        let query = sqlx::query_scalar(statement)
            .bind(self.user.as_str())
            .bind(clamped(from.get()))
            .bind(clamped(event.unread.get()))
            .bind(EventForm::write(event))
            .bind(self.trace.as_ref().map(TraceParent::as_str))
            .bind(self.at);
        let query = match self.kind {
            Kind::ReadAll => query,
            Kind::Read(_) | Kind::Delete(_) => query.bind(ids),
        };
        Ok(query.fetch_one(connection).await?)
    }
}

impl Found {
    fn changes_nothing(&self) -> bool {
        self.ids.is_empty() && self.unread == 0
    }
}

impl Change for Edit<'_> {
    type Outcome = Marked;

    fn users(&self) -> Vec<&str> {
        vec![self.user.as_str()]
    }

    async fn attempt(&self, connection: &mut PgConnection) -> Result<Attempt<Marked>, Failure> {
        let found = self.find(connection).await?;
        let unknown = self.unknown(found.as_ref());
        let Some(found) = found.filter(|found| !found.changes_nothing()) else {
            return Ok(Attempt::Unwritten(Marked { event: None, unknown }));
        };
        let event = self.event(&found)?;
        let from = found.state.revision;
        let held = self.write(connection, from, &found.ids, &event).await?;
        Ok(Attempt::written(held, Marked { event: Some(event), unknown }))
    }
}
