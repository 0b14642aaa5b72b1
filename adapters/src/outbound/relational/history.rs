use belfry_application::ports::History;
use belfry_domain::{InboxState, MissedChange, Revision};

use super::row::Joined;
use super::{StoredInstant, Unreadable, inbox_state, whole};

/// What a question for an inbox's history is answered with: the inbox in each row, and beside it one
/// of the notifications that changed, if any did.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct HistoryRow<At> {
    at_revision: i64,
    unread: i64,
    history_floor: i64,
    deleted: bool,
    #[sqlx(flatten)]
    changed: Joined<At>,
}

/// The history that these rows tell, of which there is one more than `limit` if there are more.
pub(crate) fn history<At: StoredInstant>(
    rows: Vec<HistoryRow<At>>,
    since: Revision,
    limit: usize,
) -> Result<History, Unreadable> {
    let mut state = InboxState::default();
    let mut floor = Revision::ZERO;
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        state = inbox_state(row.at_revision, row.unread)?;
        floor = Revision::new(whole(row.history_floor)?);
        if let Joined(Some(changed)) = row.changed {
            changes.push(MissedChange { notification: changed.read()?, deleted: row.deleted });
        }
    }
    let within_reach = (floor..=state.revision).contains(&since) && changes.len() <= limit;
    Ok(if within_reach {
        History::Complete { state, changes }
    } else {
        History::OutOfReach { state }
    })
}
