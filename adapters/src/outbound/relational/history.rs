use belfry_application::ports::History;
use belfry_domain::{InboxState, MissedChange, NotificationId, ReplayRange, Revision};

use super::{StoredInstant, Unreadable, count, inbox_state, whole};

/// An inbox, and how much of it changed after a revision: at most one more than the limit.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct HistoryRow {
    revision: i64,
    unread: i64,
    history_floor: i64,
    changed: i64,
    created: i64,
}

/// The history as this row has it; without a row nothing ever happened in the inbox.
pub(crate) fn history(
    row: Option<HistoryRow>,
    since: Revision,
    limit: usize,
) -> Result<History, Unreadable> {
    let Some(row) = row else {
        let state = InboxState::default();
        return Ok(if since == state.revision {
            History::Complete { state, created: 0 }
        } else {
            History::OutOfReach { state }
        });
    };
    let state = inbox_state(row.revision, row.unread)?;
    let floor = Revision::new(whole(row.history_floor)?);
    let is_remembered = (floor..=state.revision).contains(&since);
    Ok(if is_remembered && count(whole(row.changed)?) <= limit {
        History::Complete { state, created: count(whole(row.created)?) }
    } else {
        History::OutOfReach { state }
    })
}

/// An inbox, and beside it one of the changes in a range; nulls if there is none.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct ChangedRow<At> {
    history_floor: i64,
    id: Option<String>,
    revision: Option<i64>,
    read_at: Option<At>,
    deleted: bool,
}

/// The changes that these rows are, or `None` if some of the range is forgotten.
pub(crate) fn changes<At: StoredInstant>(
    rows: Vec<ChangedRow<At>>,
    range: ReplayRange,
) -> Result<Option<Vec<MissedChange>>, Unreadable> {
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        if range.after < Revision::new(whole(row.history_floor)?) {
            return Ok(None);
        }
        let (Some(id), Some(revision)) = (row.id, row.revision) else { continue };
        changes.push(MissedChange {
            id: NotificationId::parse(&id)
                .map_err(|why| Unreadable::new(format!("notification {id:?}"), &why))?,
            revision: Revision::new(whole(revision)?),
            read_at: row.read_at.as_ref().filter(|_| !row.deleted).map(At::instant),
        });
    }
    Ok(Some(changes))
}
