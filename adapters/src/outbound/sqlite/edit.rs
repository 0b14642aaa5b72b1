use std::sync::LazyLock;

use belfry_domain::{InboxState, Marked, NotificationId};
use sqlx::SqliteConnection;

use super::failure::SqliteFailure;
use super::write::{INSERT_EVENTS, Work, event_rows, in_sequence, list};
use crate::outbound::relational::{
    Edit, EditWrite, StoredTimestamp as _, clamped, inbox_state, without,
};

/// The state of an inbox that exists.
pub(super) const INBOX_STATE: &str = "SELECT revision, unread FROM inboxes WHERE user_id = ?1";

pub(super) const MARK_READ: &str = "
    UPDATE notifications SET revision = ?2, read_at = ?3
    WHERE user_id = ?1 AND id IN (SELECT value FROM json_each(?4))
      AND read_at IS NULL AND deleted_at IS NULL
    RETURNING id, created_revision, true";

pub(super) const MARK_ALL_READ: &str = "
    UPDATE notifications SET revision = ?2, read_at = ?3
    WHERE user_id = ?1 AND read_at IS NULL AND deleted_at IS NULL
    RETURNING id, created_revision, true";

/// Leaves a tombstone without the contents. The word `deleted` fills the columns that must have a
/// value.
pub(super) const DELETE: &str = "
    UPDATE notifications SET revision = ?2, deleted_at = ?3, kind = 'deleted', title = 'deleted',
        message = '', link = NULL, data = NULL, priority = 'normal', expires_at = NULL
    WHERE user_id = ?1 AND id IN (SELECT value FROM json_each(?4)) AND deleted_at IS NULL
    RETURNING id, created_revision, read_at IS NULL";

/// The ids of a list that the inbox has or once had.
pub(super) const KNOWN: &str = "
    SELECT id FROM notifications
    WHERE user_id = ?1 AND id IN (SELECT value FROM json_each(?2))";

/// Updates the inbox and adds the event.
static WRITE_CHANGE: LazyLock<String> =
    LazyLock::new(|| in_sequence(&[UPDATE_INBOX, INSERT_EVENTS]));

const UPDATE_INBOX: &str = "UPDATE inboxes SET revision = ?, unread = ? WHERE user_id = ?";

/// A changed notification: its id, its creating revision, and whether it was unread.
type Edited = (String, i64, bool);

/// Edits one user's inbox.
pub(super) async fn edit(
    connection: &mut SqliteConnection,
    write: &EditWrite,
) -> Result<Work<Marked>, SqliteFailure> {
    let user = &write.user;
    let row: Option<(i64, i64)> =
        sqlx::query_as(INBOX_STATE).bind(user.as_str()).fetch_optional(&mut *connection).await?;
    let Some((revision, unread)) = row else {
        let unknown = match &write.edit {
            Edit::MarkRead(ids) => without(ids, []),
            Edit::MarkAllRead | Edit::Delete(_) => Vec::new(),
        };
        return Ok(Work::Unchanged(Marked { event: None, unknown }));
    };
    let state = inbox_state(revision, unread)?;
    let edited = update_notifications(connection, write, state).await?;
    let unknown = unknown(connection, write, &edited).await?;
    if edited.is_empty() {
        return Ok(Work::Unchanged(Marked { event: None, unknown }));
    }
    let ids = edited.iter().map(|(id, ..)| id.as_str());
    let were_unread = edited.iter().filter(|(.., was_unread)| *was_unread).count() as u64;
    let event = write.event(state, ids, were_unread)?;
    sqlx::query(WRITE_CHANGE.as_str())
        .bind(clamped(event.revision.get()))
        .bind(clamped(event.unread.get()))
        .bind(user.as_str())
        .bind(event_rows([(&event, write.trace.as_ref())]))
        .execute(connection)
        .await?;
    Ok(Work::Written(Marked { event: Some(event), unknown }))
}

/// Returns the changed notifications, in the order in which they were created.
async fn update_notifications(
    connection: &mut SqliteConnection,
    write: &EditWrite,
    state: InboxState,
) -> Result<Vec<Edited>, SqliteFailure> {
    let (statement, ids) = match &write.edit {
        Edit::MarkRead(ids) => (MARK_READ, Some(ids)),
        Edit::MarkAllRead => (MARK_ALL_READ, None),
        Edit::Delete(ids) => (DELETE, Some(ids)),
    };
    let query = sqlx::query_as(statement)
        .bind(write.user.as_str())
        .bind(clamped(state.revision.next().get()))
        .bind(i64::from_domain(write.at)?);
    let query = match ids {
        Some(ids) => query.bind(list(ids.iter().map(NotificationId::as_str))),
        None => query,
    };
    let mut edited: Vec<Edited> = query.fetch_all(connection).await?;
    edited.sort_by_key(|(_, created_revision, _)| *created_revision);
    Ok(edited)
}

/// The ids to mark as read that the inbox never had. Runs a query only if some were not marked.
async fn unknown(
    connection: &mut SqliteConnection,
    write: &EditWrite,
    edited: &[Edited],
) -> Result<Vec<NotificationId>, SqliteFailure> {
    let Edit::MarkRead(ids) = &write.edit else { return Ok(Vec::new()) };
    let not_marked = without(ids, edited.iter().map(|(id, ..)| id.as_str()));
    if not_marked.is_empty() {
        return Ok(not_marked);
    }
    let known: Vec<String> = sqlx::query_scalar(KNOWN)
        .bind(write.user.as_str())
        .bind(list(not_marked.iter().map(NotificationId::as_str)))
        .fetch_all(connection)
        .await?;
    Ok(without(&not_marked, known.iter().map(String::as_str)))
}
