use belfry_application::ports::History;
use belfry_domain::{InboxState, MissedChange, ReplayRange, Revision};

use super::number::row_count;
use super::stored_value::{InvalidStoredValue, inbox_state, non_negative, notification_id};
use super::timestamp::StoredTimestamp;

/// An inbox, and the number of its notifications that changed after a revision: at most one more
/// than the limit.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct HistoryRow {
    revision: i64,
    unread: i64,
    history_floor: i64,
    changed: i64,
    created: i64,
}

/// The history that this row describes. No row means an inbox in which nothing ever happened.
pub(crate) fn history(
    row: Option<HistoryRow>,
    since: Revision,
    limit: usize,
) -> Result<History, InvalidStoredValue> {
    let Some(row) = row else {
        let state = InboxState::default();
        return Ok(if since == state.revision {
            History::Complete { state, created: 0 }
        } else {
            History::OutOfReach { state }
        });
    };
    let state = inbox_state(row.revision, row.unread)?;
    let floor = Revision::new(non_negative(row.history_floor)?);
    let is_kept = (floor..=state.revision).contains(&since);
    Ok(if is_kept && row_count(non_negative(row.changed)?) <= limit {
        History::Complete { state, created: row_count(non_negative(row.created)?) }
    } else {
        History::OutOfReach { state }
    })
}

/// An inbox, joined with one change in a range. All columns of the change are null if there is
/// none.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct ChangedRow<At> {
    history_floor: i64,
    id: Option<String>,
    revision: Option<i64>,
    read_at: Option<At>,
    deleted: bool,
}

/// The changes in these rows, or `None` if retention has purged a part of the range.
pub(crate) fn changes<At: StoredTimestamp>(
    rows: Vec<ChangedRow<At>>,
    range: ReplayRange,
) -> Result<Option<Vec<MissedChange>>, InvalidStoredValue> {
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        if range.after < Revision::new(non_negative(row.history_floor)?) {
            return Ok(None);
        }
        let (Some(id), Some(revision)) = (row.id, row.revision) else { continue };
        changes.push(MissedChange {
            id: notification_id(&id)?,
            revision: Revision::new(non_negative(revision)?),
            read_at: row.read_at.as_ref().filter(|_| !row.deleted).map(At::to_domain),
        });
    }
    Ok(Some(changes))
}
