use std::collections::BTreeMap;

use belfry_domain::{NotificationId, UserId};

use super::Unreadable;

/// A notification that has had its time.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct DueRow {
    user_id: String,
    id: String,
}

/// What is due in each inbox, in the order in which inboxes are locked.
pub(crate) fn due_by_inbox(
    rows: Vec<DueRow>,
) -> Result<BTreeMap<UserId, Vec<NotificationId>>, Unreadable> {
    let mut inboxes = BTreeMap::<_, Vec<_>>::new();
    for DueRow { user_id, id } in rows {
        let user = UserId::parse(&user_id).map_err(|why| Unreadable::new("a user", &why))?;
        let id = NotificationId::parse(&id).map_err(|why| Unreadable::new("an id", &why))?;
        inboxes.entry(user).or_default().push(id);
    }
    Ok(inboxes)
}
