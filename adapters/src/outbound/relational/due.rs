use std::collections::BTreeMap;

use belfry_domain::{NotificationId, UserId};

use super::stored_value::{InvalidStoredValue, notification_id, user_id};

/// A notification that retention must delete.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct DueRow {
    user_id: String,
    id: String,
}

/// Groups due notifications by inbox. The map is sorted because inboxes are locked in that order.
pub(crate) fn due_by_inbox(
    rows: Vec<DueRow>,
) -> Result<BTreeMap<UserId, Vec<NotificationId>>, InvalidStoredValue> {
    let mut inboxes = BTreeMap::<_, Vec<_>>::new();
    for row in rows {
        inboxes.entry(user_id(&row.user_id)?).or_default().push(notification_id(&row.id)?);
    }
    Ok(inboxes)
}
