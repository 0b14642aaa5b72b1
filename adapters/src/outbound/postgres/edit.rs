use std::collections::BTreeSet;

use belfry_application::trace::{self, TraceParent};
use belfry_domain::{
    Change as Told, DomainEvent, InboxState, NotificationId, Revision, Timestamp, UnreadCount,
    UserId,
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

/// Where the inbox stands, and which of the notifications are there; `$3` wants only unread ones.
const FOUND: &str = "
    SELECT inbox.revision, inbox.unread, found.ids, found.unread_ones
    FROM inboxes inbox CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(n.id ORDER BY n.created_revision), '{}') AS ids,
               count(*) FILTER (WHERE n.read_at IS NULL) AS unread_ones
        FROM unnest($2::text[]) AS wanted (id) CROSS JOIN LATERAL (
            SELECT * FROM notifications one
            WHERE one.user_id = inbox.user_id AND one.id = wanted.id OFFSET 0
        ) n
        WHERE n.deleted_at IS NULL AND (n.read_at IS NULL OR NOT $3)
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
    ($notifications:literal) => {
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

const READ: &str = edit!(
    "
        UPDATE notifications SET revision = $2 + 1, read_at = $6
        WHERE user_id = $1 AND id = ANY($7)"
);

const READ_ALL: &str = edit!(
    "
        UPDATE notifications SET revision = $2 + 1, read_at = $6
        WHERE user_id = $1 AND deleted_at IS NULL AND read_at IS NULL"
);

const DELETE: &str = edit!(
    "
        UPDATE notifications SET revision = $2 + 1, deleted_at = $6
        WHERE user_id = $1 AND id = ANY($7)"
);

/// What there is to change.
struct Found {
    state: InboxState,
    ids: Vec<String>,
    unread: u64,
}

impl Edit<'_> {
    async fn find(&self, connection: &mut PgConnection) -> Result<Option<Found>, Failure> {
        let (ids, only_unread) = match self.kind {
            Kind::Read(ids) => (ids, true),
            Kind::Delete(ids) => (ids, false),
            Kind::ReadAll => return self.find_all(connection).await,
        };
        let ids: BTreeSet<_> = ids.iter().map(NotificationId::as_str).collect();
        let row: Option<(i64, i64, Vec<String>, i64)> = sqlx::query_as(FOUND)
            .bind(self.user.as_str())
            .bind(ids.into_iter().collect::<Vec<_>>())
            .bind(only_unread)
            .fetch_optional(connection)
            .await?;
        let Some((revision, unread, ids, unread_ones)) = row else {
            return Ok(None);
        };
        let found =
            Found { state: inbox_state(revision, unread)?, unread: whole(unread_ones)?, ids };
        Ok((!found.ids.is_empty()).then_some(found))
    }

    async fn find_all(&self, connection: &mut PgConnection) -> Result<Option<Found>, Failure> {
        let row: Option<(i64, i64)> =
            sqlx::query_as(STATE).bind(self.user.as_str()).fetch_optional(connection).await?;
        let Some((revision, unread)) = row else {
            return Ok(None);
        };
        let state = inbox_state(revision, unread)?;
        let unread = state.unread.get();
        let ids = Vec::new();
        Ok((unread > 0).then_some(Found { state, ids, unread }))
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

impl Change for Edit<'_> {
    type Outcome = Option<DomainEvent>;

    fn users(&self) -> Vec<&str> {
        vec![self.user.as_str()]
    }

    async fn attempt(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Attempt<Option<DomainEvent>>, Failure> {
        let Some(found) = self.find(connection).await? else {
            return Ok(Attempt::Unwritten(None));
        };
        let event = self.event(&found)?;
        let from = found.state.revision;
        let held = self.write(connection, from, &found.ids, &event).await?;
        Ok(Attempt::written(held, Some(event)))
    }
}
