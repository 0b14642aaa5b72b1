use std::collections::HashSet;

use belfry_application::trace::{self, TraceParent};
use belfry_domain::{
    Change, DomainEvent, InboxState, Marked, NotificationId, Timestamp, UnreadCount, UserId,
};
use sqlx::SqliteConnection;

use super::failure::Failure;
use super::inbox_repository::{STATE, millis};
use super::outbox::TELL;
use super::write::{Work, list};
use crate::outbound::relational::{Unreadable, clamped, inbox_state};
use crate::wire::EventForm;

/// What is done to notifications of one inbox that are there already.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit<'a> {
    Read(&'a [NotificationId]),
    ReadAll,
    Delete(&'a [NotificationId]),
}

pub(super) const READ: &str = "
    UPDATE notifications SET revision = ?2, read_at = ?3
    WHERE user_id = ?1 AND id IN (SELECT value FROM json_each(?4))
      AND read_at IS NULL AND deleted_at IS NULL
    RETURNING id, created_revision, true";

pub(super) const READ_ALL: &str = "
    UPDATE notifications SET revision = ?2, read_at = ?3
    WHERE user_id = ?1 AND read_at IS NULL AND deleted_at IS NULL
    RETURNING id, created_revision, true";

pub(super) const DELETE: &str = "
    UPDATE notifications SET revision = ?2, deleted_at = ?3
    WHERE user_id = ?1 AND id IN (SELECT value FROM json_each(?4)) AND deleted_at IS NULL
    RETURNING id, created_revision, read_at IS NULL";

/// Those of a list that the inbox has, or had.
pub(super) const KNOWN: &str = "
    SELECT id FROM notifications
    WHERE user_id = ?1 AND id IN (SELECT value FROM json_each(?2))";

const MOVE: &str = "UPDATE inboxes SET revision = ?2, unread = ?3 WHERE user_id = ?1";

/// A notification that was changed: its id, its place in the inbox, and whether it was unread.
type Edited = (String, i64, bool);

impl Edit<'_> {
    pub(super) async fn run(
        self,
        connection: &mut SqliteConnection,
        user: &UserId,
        at: Timestamp,
    ) -> Result<Work<Marked>, Failure> {
        let row: Option<(i64, i64)> =
            sqlx::query_as(STATE).bind(user.as_str()).fetch_optional(&mut *connection).await?;
        let Some((revision, unread)) = row else {
            let unknown = match self {
                Self::Read(ids) => without(ids, []),
                Self::ReadAll | Self::Delete(_) => Vec::new(),
            };
            return Ok(Work::Unwritten(Marked { event: None, unknown }));
        };
        let state = inbox_state(revision, unread)?;
        let edited = self.edit(connection, user, state, at).await?;
        let unknown = self.unknown(connection, user, &edited).await?;
        if edited.is_empty() {
            return Ok(Work::Unwritten(Marked { event: None, unknown }));
        }
        let event = self.event(user, state, &edited, at)?;
        sqlx::query(MOVE)
            .bind(user.as_str())
            .bind(clamped(event.revision.get()))
            .bind(clamped(event.unread.get()))
            .execute(&mut *connection)
            .await?;
        sqlx::query(TELL)
            .bind(list([EventForm::write(&event)]))
            .bind(trace::current().as_ref().map(TraceParent::as_str))
            .execute(connection)
            .await?;
        Ok(Work::Written(Marked { event: Some(event), unknown }))
    }

    async fn edit(
        self,
        connection: &mut SqliteConnection,
        user: &UserId,
        state: InboxState,
        at: Timestamp,
    ) -> Result<Vec<Edited>, Failure> {
        let (statement, ids) = match self {
            Self::Read(ids) => (READ, Some(ids)),
            Self::ReadAll => (READ_ALL, None),
            Self::Delete(ids) => (DELETE, Some(ids)),
        };
        let query = sqlx::query_as(statement)
            .bind(user.as_str())
            .bind(clamped(state.revision.next().get()))
            .bind(millis(at)?);
        let query = match ids {
            Some(ids) => query.bind(list(ids.iter().map(NotificationId::as_str))),
            None => query,
        };
        let mut edited: Vec<Edited> = query.fetch_all(connection).await?;
        edited.sort_by_key(|(_, created_revision, _)| *created_revision);
        Ok(edited)
    }

    /// Those that shall be read and that the inbox has never had. Looks only where some were not
    /// marked.
    async fn unknown(
        self,
        connection: &mut SqliteConnection,
        user: &UserId,
        edited: &[Edited],
    ) -> Result<Vec<NotificationId>, Failure> {
        let Self::Read(ids) = self else { return Ok(Vec::new()) };
        let not_marked = without(ids, edited.iter().map(|(id, ..)| id.as_str()));
        if not_marked.is_empty() {
            return Ok(not_marked);
        }
        let known: Vec<String> = sqlx::query_scalar(KNOWN)
            .bind(user.as_str())
            .bind(list(not_marked.iter().map(NotificationId::as_str)))
            .fetch_all(connection)
            .await?;
        Ok(without(&not_marked, known.iter().map(String::as_str)))
    }

    fn event(
        self,
        user: &UserId,
        state: InboxState,
        edited: &[Edited],
        at: Timestamp,
    ) -> Result<DomainEvent, Failure> {
        let ids = || {
            let parsed = edited.iter().map(|(id, ..)| NotificationId::parse(id));
            let parsed: Result<Vec<_>, _> = parsed.collect();
            parsed.map_err(|why| Unreadable::new("an id", &why))
        };
        let change = match self {
            Self::Read(_) => Change::MarkedRead { ids: ids()?, read_at: at },
            Self::ReadAll => Change::AllRead { read_at: at },
            Self::Delete(_) => Change::Deleted { ids: ids()? },
        };
        let gone = edited.iter().filter(|(.., unread)| *unread).count() as u64;
        let left = state.unread.get().checked_sub(gone);
        let left = left.ok_or_else(|| Unreadable::new("an unread count", &"it is too low"))?;
        Ok(DomainEvent {
            user: user.clone(),
            revision: state.revision.next(),
            unread: UnreadCount::new(left),
            change,
        })
    }
}

/// Those ids that are not among the others, each once, in their order.
fn without<'a>(
    ids: &[NotificationId],
    others: impl IntoIterator<Item = &'a str>,
) -> Vec<NotificationId> {
    let mut seen: HashSet<_> = others.into_iter().collect();
    ids.iter().filter(|id| seen.insert(id.as_str())).cloned().collect()
}
